"""Videos of a policy's episodes, recorded by Gymnasium's own wrapper.

The environment runs in a separate process, which draws without a screen and never imports
TensorFlow: TensorFlow's libraries export their bundled LLVM, and OpenGL drivers with an LLVM of
their own, such as Mesa's, crash in a process that has already loaded TensorFlow.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from ppo_tf.environments.atari import AtariEnvs
from ppo_tf.environments.backends import make_envs
from ppo_tf.evaluating.evaluation import Act, Evaluation, make_act, play
from ppo_tf.policies.policy import Policy
from ppo_tf.support import quiet
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.support.extras import needs
from ppo_tf.support.folders import check_new_folder

MAX_STEPS = 2_000  # frames stay in memory until the end, 0.7 MB each at 600 x 400 pixels

_SUFFIXES = (".mp4", ".gif")
_GIF_FPS = 50  # browsers show a GIF's frame for at least 20 ms


def record_video(
    policy: Policy | Act,
    env_id: str,
    path: str | os.PathLike[str],
    *,
    episodes: int = 1,
    seed: int = 0,
    deterministic: bool = True,
    max_steps: int = MAX_STEPS,
    overwrite: bool = False,
    **kwargs: Any,
) -> Evaluation:
    """Records whole episodes; with a deterministic policy, the first ones of `evaluate`.

    Records with `gymnasium.wrappers.vector.RecordVideo`, one frame per step at the environment's
    own frame rate; the last frame stays for half a second. The file appears complete or not at all.
    No random state is shared with training.

    Args:
        policy: policy to show, or a callable; see `evaluate`.
        env_id: id of the environment.
        path: path of the file, .mp4 (H.264) or .gif.
        episodes: number of episodes in the video, one after the other.
        seed: seed of the episodes and of sampled actions, as in `evaluate`.
        deterministic: whether a Policy takes its mode instead of sampling.
        max_steps: number of steps after which an episode is cut off; frames stay in memory until
            the end.
        overwrite: whether to replace an existing file.
        kwargs: further arguments of the environment.

    Returns:
        Returns and lengths of the recorded episodes.

    Raises:
        ValueError: an argument is out of range, or the environment draws no images; also as in
            `make_envs`.
        ImportError: a package needed to draw or write is not installed.
        FileExistsError, NotADirectoryError, PermissionError: see `check_new_folder`.
        RuntimeError: drawing fails, for instance without OpenGL.
        NonFiniteError: an episode's return is NaN or infinite.
    """
    path = check_video_path(path, overwrite=overwrite)
    check_at_least_one(episodes=episodes, max_steps=max_steps)
    envs = drawing_envs(env_id, kwargs)
    recorder = None
    try:
        act = make_act(policy, envs, deterministic) if isinstance(policy, Policy) else policy
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as temporary:
            # The wrapper writes name.mp4 into a folder, and warns if that exists.
            folder = Path(temporary) / "recording"
            recorder = gymnasium.wrappers.vector.RecordVideo(
                envs, str(folder), step_trigger=lambda step: False, video_length=sys.maxsize
            )
            recorder.start_recording("video")
            result = play(recorder, act, episodes, seed, max_steps)
            # Shows how it ended; also, MoviePy's rounding may drop a frame at the end.
            half_second = math.ceil(recorder.frames_per_sec / 2)
            recorder.recorded_frames += recorder.recorded_frames[-1:] * half_second
            if path.suffix == ".gif":
                _write_gif(folder / "video.gif", recorder.recorded_frames, recorder.frames_per_sec)
            else:
                recorder.stop_recording()
            os.replace(folder / f"video{path.suffix}", path)
    except BaseException:
        _abandon(envs)
        raise
    finally:
        if recorder is not None:
            recorder.recorded_frames = []  # it complains about frames that were never written
    envs.close()
    return result


def check_video_path(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Checks that a video can be written at path; returns path as a `Path`.

    Args:
        path: path of the file, .mp4 or .gif.
        overwrite: whether it may exist.

    Raises:
        ValueError: path has another suffix.
        ImportError: MoviePy is not installed.
        FileExistsError, NotADirectoryError, PermissionError: see `check_new_folder`.
    """
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"A video must end in {' or '.join(_SUFFIXES)}. Received: path={path}")
    if importlib.util.find_spec("moviepy") is None:
        raise ImportError(needs("A video", "video"))
    return path if overwrite and path.is_file() else check_new_folder(path, "video")


def drawing_envs(env_id: str, kwargs: dict[str, Any]) -> gymnasium.vector.VectorEnv:
    """Makes one environment that draws, in auto-reset mode DISABLED, and tries a first frame."""
    silent = make_envs(env_id, 1, backend="sync", **kwargs)
    silent.close()
    if "rgb_array" not in (silent.metadata.get("render_modes") or ()):
        raise ValueError(
            f"Only environments with the render mode 'rgb_array' can be recorded. "
            f"Received: env={env_id!r}, render_modes={silent.metadata.get('render_modes')}"
        )
    options: dict[str, Any] = {
        "autoreset_mode": AutoresetMode.DISABLED,
        "render_mode": "rgb_array",
        **kwargs,
    }
    if isinstance(silent, AtariEnvs):  # it runs in threads and needs no drawing library
        return make_envs(env_id, 1, **options)
    envs = None
    try:
        # The process's messages about drivers, even those at its exit, are discarded.
        with _clean_child(), quiet.held_back(show_if_failed=False), _without_warnings():
            envs = make_envs(env_id, 1, backend="async", context="spawn", **options)
            frames = envs.render()
    except Exception as error:
        if envs is not None:
            _abandon(envs)
        if isinstance(error, ImportError | gymnasium.error.DependencyNotInstalled):
            raise ImportError(needs(f"A video of {env_id}", "video")) from error
        # A crashing driver ends the process, which shows here as an EOFError or a broken pipe.
        raise RuntimeError(
            f"{env_id} cannot be drawn on this machine ({type(error).__name__}: {error}); MuJoCo "
            "without a screen needs EGL or OSMesa, see its environment variable MUJOCO_GL"
        ) from error
    if frames is None or not isinstance(frames[0], np.ndarray):
        envs.close()
        raise ValueError(f"{env_id} draws no images. Received: render()={frames!r}")
    return envs


@contextlib.contextmanager
def _clean_child() -> Iterator[None]:
    """Makes processes spawned inside draw without a screen, and keeps them from running the
    caller's script first, which would import TensorFlow."""
    settings = {"SDL_VIDEODRIVER": "dummy"}  # for pygame
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        settings["MUJOCO_GL"] = "egl"
    added = {name: value for name, value in settings.items() if name not in os.environ}
    script = sys.modules["__main__"]
    os.environ.update(added)
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
        for name in added:
            os.environ.pop(name, None)


def _abandon(envs: gymnasium.vector.VectorEnv) -> None:
    """Closes environments whose process may be blocked or may have crashed."""
    try:
        with _without_warnings():
            envs.close(terminate=True)
    except (EOFError, OSError):
        # The process does not answer, but may still be exiting.
        envs.closed = True
        for process in getattr(envs, "processes", ()):
            process.terminate()
            process.join()


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppresses Gymnasium's warnings, which only repeat the exception at length."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _write_gif(path: Path, frames: list[np.ndarray], fps: float) -> None:
    """Writes frames uint8 [H, W, 3]; above a GIF's frame rate, only every n-th."""
    import imageio.v3

    stride = math.ceil(fps / _GIF_FPS)
    milliseconds = 1000.0 * stride / fps
    imageio.v3.imwrite(path, frames[::stride], duration=milliseconds, loop=0)

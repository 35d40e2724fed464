"""Videos of a policy's episodes, recorded by Gymnasium's own wrapper.

The environment runs in a process of its own, which draws without a screen and never imports
TensorFlow: TensorFlow's libraries export the LLVM that they contain, and OpenGL drivers with an
LLVM of theirs, as Mesa's, crash in a process that has loaded TensorFlow before.
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
from ppo_tf.support.extras import needs
from ppo_tf.support.folders import check_new_folder

MAX_STEPS = 2_000  # frames wait in memory for the end, and 600 x 400 pixels are 0.7 MB

_SUFFIXES = (".mp4", ".gif")
_GIF_FPS = 50  # browsers show a frame of a GIF for 20 ms at least


def record_video(
    policy: Policy | Act,
    env_id: str,
    path: str | os.PathLike,
    *,
    episodes: int = 1,
    seed: int = 0,
    deterministic: bool = True,
    max_steps: int = MAX_STEPS,
    overwrite: bool = False,
    **kwargs: Any,
) -> Evaluation:
    """Records whole episodes; a deterministic policy's are the first of `evaluate`'s.

    One frame per step, in the environment's own time, the last one for half a second, with
    `gymnasium.wrappers.vector.RecordVideo`. The file appears complete or not at all. Nothing random
    is shared with a training that is going on.

    Args:
        policy: to show, or a callable; see `evaluate`.
        env_id: of the environment.
        path: of the file, .mp4 (H.264) or .gif.
        episodes: in the video, one after the other.
        seed: of the episodes and of sampled actions, as for `evaluate`.
        deterministic: whether a Policy takes its mode or draws.
        max_steps: after which an episode is broken off; frames are kept in memory until the end.
        overwrite: whether a file that exists is replaced.
        kwargs: of the environment.

    Returns:
        Returns and lengths of what the video shows.

    Raises:
        ValueError: an argument out of range; an environment that draws no images; as `make_envs`.
        ImportError: a package that drawing or writing needs is not installed.
        FileExistsError, NotADirectoryError, PermissionError: see `check_new_folder`.
        RuntimeError: drawing fails, for instance where there is no OpenGL.
        NonFiniteError: an episode's return is not a number.
    """
    path = check_video_path(path, overwrite=overwrite)
    for name, value in {"episodes": episodes, "max_steps": max_steps}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
    envs = drawing_envs(env_id, kwargs)
    recorder = None
    try:
        act = make_act(policy, envs, deterministic) if isinstance(policy, Policy) else policy
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as temporary:
            # The wrapper writes name.mp4 into a folder, and warns of one that exists.
            folder = Path(temporary) / "recording"
            recorder = gymnasium.wrappers.vector.RecordVideo(
                envs, str(folder), step_trigger=lambda step: False, video_length=sys.maxsize
            )
            recorder.start_recording("video")
            result = play(recorder, act, episodes, seed, max_steps)
            # How it ended can be seen; and MoviePy's rounding may drop a frame at the end.
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
            recorder.recorded_frames = []  # it complains of frames that were never written
    envs.close()
    return result


def check_video_path(path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Returns path, of a video that can be written.

    Args:
        path: of the file, .mp4 or .gif.
        overwrite: whether it may exist.

    Raises:
        ValueError: another suffix.
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
    """One environment that draws, in auto-reset mode DISABLED; it has drawn once, to try."""
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
    if isinstance(silent, AtariEnvs):  # threads of this process, and no drawing library
        return make_envs(env_id, 1, **options)
    envs = None
    try:
        # What the process says of drivers, also at its end, goes where nobody reads it.
        with _child_of_its_own(), quiet.held_back(show_if_failed=False), _unwarned():
            envs = make_envs(env_id, 1, backend="async", context="spawn", **options)
            frames = envs.render()
    except Exception as error:
        if envs is not None:
            _abandon(envs)
        if isinstance(error, ImportError | gymnasium.error.DependencyNotInstalled):
            raise ImportError(needs(f"A video of {env_id}", "video")) from error
        # A driver that crashes ends the process, which is an EOFError or a broken pipe here.
        raise RuntimeError(
            f"{env_id} cannot be drawn on this machine ({type(error).__name__}: {error}); MuJoCo "
            "without a screen needs EGL or OSMesa, see its environment variable MUJOCO_GL"
        ) from error
    if frames is None or not isinstance(frames[0], np.ndarray):
        envs.close()
        raise ValueError(f"{env_id} draws no images. Received: render()={frames!r}")
    return envs


@contextlib.contextmanager
def _child_of_its_own() -> Iterator[None]:
    """Processes that multiprocessing spawns meanwhile draw without a screen, and do not begin with
    running the caller's script once more, which would import TensorFlow."""
    settings = {"SDL_VIDEODRIVER": "dummy"}  # of pygame
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
    """Closes environments whose process may wait for something, or may have crashed."""
    try:
        with _unwarned():
            envs.close(terminate=True)
    except (EOFError, OSError):
        # Nobody answers, but the process may still be on its way out.
        envs.closed = True
        for process in getattr(envs, "processes", ()):
            process.terminate()
            process.join()


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    """Without Gymnasium's warnings, which tell at length what the exception tells."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _write_gif(path: Path, frames: list[np.ndarray], fps: float) -> None:
    """Writes frames uint8 [H, W, 3]; of more per second than a GIF has, only every n-th."""
    import imageio.v3

    stride = math.ceil(fps / _GIF_FPS)
    milliseconds = 1000.0 * stride / fps
    imageio.v3.imwrite(path, frames[::stride], duration=milliseconds, loop=0)

"""The plot command: its statistics, figures and errors."""

import itertools
import json
import xml.etree.ElementTree

import numpy as np
import pytest

from ppo_tf.command import evaluate
from ppo_tf.command import plot as command
from ppo_tf.command.plotting.curves import Run, band, curve, find, read, smoothed
from ppo_tf.command.plotting.figure import draw, thousands

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

METRIC = "rollout/episode_return"


@pytest.fixture
def plot(monkeypatch, tmp_path):
    """Runs the command in an empty folder; returns its exit code."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: command.main(list(map(str, arguments)))


def write_run(folder, env="Env-v0", seed=0, steps=(10, 20, 30), values=(1, 2, 3), **settings):
    """Writes the two files of a run; a value of the metric may be missing, ""."""
    folder.mkdir(parents=True)
    settings = {"estimator": "gae", "gamma": 0.99, "seed": seed, **settings}
    config = {"env": env, "seed": seed}
    config["settings"] = {k: {"value": v, "source": "flag"} for k, v in settings.items()}
    (folder / "config.json").write_text(json.dumps(config))
    rows = [f"{i},{v},{s},{s / 10}" for i, (s, v) in enumerate(zip(steps, values, strict=True))]
    header = f"iteration,{METRIC},rollout/steps,train/kl"
    (folder / "metrics.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def make(steps, values, seed=0, env="Env-v0", **settings):
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    settings = {"estimator": "gae", **settings, "seed": seed}
    return Run(f"run{seed}", env, settings, steps, values, [])


def figure_of(plot, *arguments):
    """Returns the figure that the command draws."""
    figures = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "draw", lambda *given: figures.append(draw(*given)) or figures[-1])
        assert plot(*arguments, "--out=it.png") == 0
    return figures[0]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


# ---- statistics


def test_the_band_is_the_percentile_interval_of_all_resamples():
    """Against the exact bootstrap distribution: the means of all 6^6 resamples."""
    values = np.random.default_rng(0).gamma(2.0, size=(6, 3))  # skewed
    low, high = band(values)
    means = np.array([values[list(i)].mean(0) for i in itertools.product(range(6), repeat=6)])
    expected = np.quantile(means, [0.025, 0.975], axis=0)
    width = expected[1] - expected[0]
    assert (np.abs([low, high] - expected) < 0.05 * width).all()
    assert (low < values.mean(0)).all() and (values.mean(0) < high).all()


def test_the_band_covers_the_true_mean_as_often_as_it_should():
    """90% for 10 normal values: the variance has divisor n, and 1.96 is not Student's quantile."""
    values = np.random.default_rng(1).normal(size=(10, 2000))
    low, high = band(values)
    assert 0.87 < ((low < 0.0) & (high > 0.0)).mean() < 0.93


def test_the_curve_of_a_group_is_the_mean_over_the_range_that_all_its_runs_cover():
    """By hand: at 15 the first has 1.5, the second 20, ..."""
    one = make([0, 10, 20, 30], [0, 1, 2, 7], seed=0)
    two = make([5, 15, 25], [10, 20, 40], seed=1)
    steps, mean, low, high = curve([one, two])
    assert steps.tolist() == [5, 10, 15, 20, 25]
    np.testing.assert_allclose(mean, [5.25, 8.0, 10.75, 16.0, 22.25], rtol=1e-12)
    np.testing.assert_allclose(low, [0.5, 1, 1.5, 2, 4.5])  # the band of two runs spans both
    np.testing.assert_allclose(high, [10, 15, 20, 30, 40])


def test_the_curve_of_a_single_run_is_the_run():
    steps, mean, low, high = curve([make([1, 3, 4], [5, 0, 2])])
    assert (steps.tolist(), mean.tolist(), low, high) == ([1, 3, 4], [5, 0, 2], None, None)


@pytest.mark.parametrize("window", [1, 25, 40, 1000])
def test_smoothing_is_the_mean_over_the_last_steps(window):
    steps = np.array([10, 20, 40, 45, 80])
    values = np.array([1.0, -2.0, 5.0, 7.0, 0.5])
    smooth = smoothed(make(steps, values), window)
    expected = [
        np.mean([v for t, v in zip(steps, values, strict=True) if s - window < t <= s])
        for s in steps
    ]
    np.testing.assert_allclose(smooth.values, expected)
    assert smooth.steps.tolist() == steps.tolist()


def test_empty_fields_duplicate_rows_and_a_torn_last_row_are_not_points(tmp_path):
    folder = write_run(
        tmp_path / "run", steps=[10, 20, 30, 30, 40, 50], values=["", 2, 3, 4, "nan", "inf"]
    )
    with open(folder / "metrics.csv", "a") as file:
        file.write("6,9")
    run = read(folder, METRIC)
    assert (run.steps.tolist(), run.values.tolist()) == ([20, 30], [2, 4])


# ---- the figure


def test_seeds_become_a_mean_with_a_band_and_the_legend_shows_what_differs(plot, tmp_path):
    for seed, estimator in itertools.product(range(3), ["gae", "n_step"]):
        values = [seed, 2 * seed + (estimator == "gae"), 4]
        write_run(tmp_path / f"{estimator}-{seed}", seed=seed, values=values, estimator=estimator)
    figure = figure_of(plot, tmp_path)
    (axes,) = figure.axes
    assert axes.get_title() == "Env-v0"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("environment steps", METRIC)
    assert legend_of(figure) == ["estimator=gae, 3 seeds", "estimator=n_step, 3 seeds"]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[1, 3, 4], [1, 2, 4]]
    assert len(axes.collections) == 2
    outline = axes.collections[0].get_paths()[0].vertices
    assert outline[outline[:, 0] == 10][:, 1].min() == 0.0
    assert outline[outline[:, 0] == 10][:, 1].max() == 2.0
    colors = [line.get_color() for line in axes.lines]
    assert len(set(colors)) == 2
    shown = [line.get_color() for line in figure.legends[0].get_lines()]
    assert shown == colors


def test_environments_are_panels_in_which_settings_keep_their_colour(plot, tmp_path):
    """gamma differs only between the environments, as presets do, so it is not in the legend."""
    for env, gamma in ("A-v0", 0.9), ("B-v0", 0.99):
        for sizes in [64, 64], [8]:
            name = f"{env}-{len(sizes)}"
            write_run(tmp_path / name, env, gamma=gamma, hidden_sizes=sizes)
    write_run(tmp_path / "more", "B-v0", seed=7, gamma=0.99, hidden_sizes=[8])
    figure = figure_of(plot, tmp_path)
    assert [axes.get_title() for axes in figure.axes] == ["A-v0", "B-v0"]
    labels = ["hidden_sizes=8, 1 to 2 seeds", "hidden_sizes=64,64, 1 seed"]
    assert sorted(legend_of(figure)) == sorted(labels)
    one, two = ({line.get_color() for line in axes.lines} for axes in figure.axes)
    assert one == two and len(one) == 2


@pytest.mark.parametrize(
    ("group_by", "legend"),
    [
        ("estimator", ["estimator=gae, 4 runs", "estimator=n_step, seed 0"]),
        ("gamma,estimator", ["gamma=0.9, estimator=gae, 2 seeds", "gamma=0.8, estimator=gae"]),
        ("seed", ["seed=0", "seed=1"]),
        ("", ["5 runs"]),
    ],
)
def test_group_by_selects_the_runs_of_a_curve(group_by, legend, plot, tmp_path):
    for gamma, seed in itertools.product([0.9, 0.8], [0, 1]):
        write_run(tmp_path / f"{gamma}-{seed}", gamma=gamma, seed=seed)
    write_run(tmp_path / "other", estimator="n_step", gamma=0.9)
    found = legend_of(figure_of(plot, tmp_path, f"--group_by={group_by}"))
    assert all(any(text in shown for shown in found) for text in legend), found


def test_numbers_have_thousand_separators_and_a_minus_sign(plot, tmp_path):
    write_run(tmp_path / "run", steps=[0, 1_000_000], values=[-5000, 0.25])
    figure = figure_of(plot, "run")
    figure.canvas.draw()
    (axes,) = figure.axes
    assert "1,000,000" in [tick.get_text() for tick in axes.get_xticklabels()]
    assert "\N{MINUS SIGN}5,000" in [tick.get_text() for tick in axes.get_yticklabels()]
    assert [thousands(x, 0) for x in (0.1 + 0.2, 1e-5, 0.0)] == [
        "0.3",
        "1e\N{MINUS SIGN}05",
        "0",
    ]


@pytest.mark.parametrize("count", [1, 9, 23])
def test_the_legend_is_not_cut_off_and_every_curve_looks_different(count, plot, tmp_path):
    for i in range(count):
        write_run(tmp_path / f"run{i}", learning_rate=0.001 * i, estimator="reward_to_go")
    figure = figure_of(plot, tmp_path)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
    assert box.y1 <= figure.axes[0].get_tightbbox().y0
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == count


# ---- the command


def test_by_default_a_png_and_an_svg_are_written_to_the_working_folder(plot, tmp_path, capsys):
    write_run(tmp_path / "runs" / "one")
    assert plot("runs/one") == 0
    assert capsys.readouterr() == ("wrote curve.png\nwrote curve.svg\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "curve.svg", "runs"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG\r\n")
    root = xml.etree.ElementTree.parse(tmp_path / "curve.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    paths = root.iter("{http://www.w3.org/2000/svg}path")
    assert len(list(paths)) > 10


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["runs"], ["a", "b", "c"]),
        (["runs/a"], ["a"]),
        (["runs/*"], ["a", "b", "c"]),
        (["runs/[ab]"], ["a", "b"]),
        (["runs/b", "runs/a", "runs/b/"], ["b", "a"]),
        (["runs/deep", "runs/a"], ["c", "a"]),
    ],
)
def test_runs_are_found_by_folder_and_by_glob_once_each(patterns, expected, plot, tmp_path):
    for name in ("a", "b", "deep/c"):
        write_run(tmp_path / "runs" / name)
    (tmp_path / "runs" / "curve.png").write_text("")
    assert [folder.name for folder in find(patterns)] == expected


def test_runs_without_values_and_duplicate_runs_are_skipped(plot, tmp_path, capsys):
    write_run(tmp_path / "a", values=[1, 2, 5])
    write_run(tmp_path / "b", steps=[10, 20, 40], values=[1, 2, 9])
    write_run(tmp_path / "c", seed=1, values=["", "", ""])
    (write_run(tmp_path / "d", seed=2) / "metrics.csv").write_text("")
    figure = figure_of(plot, "a", "b", "c", "d")
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[1, 2, 9]]
    assert legend_of(figure) == ["seed 0"]
    assert capsys.readouterr().out.splitlines() == [
        "skipped a: b has the same seed and settings",
        f"skipped c: it has no {METRIC}",
        f"skipped d: it has no {METRIC}",
        "wrote it.png",
    ]


def test_another_metric_and_another_folder(plot, tmp_path):
    write_run(tmp_path / "run")
    figure = figure_of(plot, "run", "--metric=train/kl", "--smooth=1")
    assert figure.axes[0].lines[0].get_ydata().tolist() == [1.0, 2.0, 3.0]
    assert plot("run", "--out=new/it.svg,new/it.pdf") == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["it.pdf", "it.svg"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["run"]),
        (["nowhere"], ["No such folder", "nowhere"]),
        (["run", "no*where"], ["No such folder", "no*where"]),
        (["empty"], ["No run", "empty"]),
        (["run", "--metric=rollout/return"], ["rollout/return", METRIC, "train/kl"]),
        (["run", "--group_by=estimater"], ["estimater", "estimator, gamma, seed"]),
        (["run", "--out=it.bmp"], ["it.bmp", ".png", ".svg"]),
        (["run", "--out=it"], [".png"]),
        (["run", "--out=run/config.json/it.png"], ["run/config.json"]),
        (["run", "--smooth=0"], ["smooth=0"]),
        (["run", "--smooth=many"], ["smooth", "many"]),
        (["run", "--matric=train/kl"], ["matric", "metric"]),
        (["valueless"], ["Nothing to draw", METRIC]),
        (["run", "late", "--group_by="], ["no steps in common", "run", "late"]),
        (["broken"], ["broken/config.json", "settings"]),
        (["configless"], ["configless/config.json"]),
        (["run/config.json"], ["No run", "run/config.json"]),
    ],
)
def test_bad_input_is_a_one_line_error_and_leaves_nothing(arguments, words, plot, tmp_path, capfd):
    write_run(tmp_path / "run")
    write_run(tmp_path / "late", seed=1, steps=[100, 200, 300])
    write_run(tmp_path / "valueless", values=["", "", ""])
    (write_run(tmp_path / "broken") / "config.json").write_text('{"env": "A-v0", "seed": 0}')
    (write_run(tmp_path / "configless") / "config.json").unlink()
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert plot(*arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert all(word in err for word in words), err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_package_is_named_with_its_extra(plot, tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "run")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert plot("run") == 2
    assert "pip install 'ppo_tf[plot]'" in capsys.readouterr().err


@pytest.mark.parametrize("module", [command, evaluate])
def test_every_flag_shows_its_default_or_that_it_is_required(module):
    defined = module.FLAGS
    assert len(list(defined)) >= 4
    for flag in defined:
        told = "(default: " in defined[flag].help or "Required." in defined[flag].help
        assert told != (defined[flag].default is not None), flag  # absl shows defaults itself

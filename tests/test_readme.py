"""The examples in README run as printed, and the files and names it mentions exist."""

import re
from pathlib import Path

import pytest

import ppo_tf

ROOT = Path(ppo_tf.__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_examples_run(tmp_path, monkeypatch, without_xla):
    monkeypatch.chdir(tmp_path)
    spaces, first, second = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    namespace: dict = {}
    exec(spaces.replace("4_096", "2048"), namespace)
    assert namespace["learner"].iterations == 1
    exec(first.replace("100_000", "2048"), namespace)
    assert namespace["learner"].iterations == 1
    exec(second, namespace)
    action = namespace["action"].numpy()
    assert action.shape == (1, 1) and -2.0 <= action[0, 0] <= 2.0


def test_the_files_it_names_exist():
    for name in re.findall(r"`((?:examples|benchmarks|ppo_tf|tests)/[\w./]+)`", README):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    "name", ["README.md", "BUILD_NOTES.md", "CHANGELOG.md", "benchmarks/README.md"]
)
def test_the_public_names_in_documents_exist(name):
    text = (ROOT / name).read_text()
    for public in re.findall(r"ppo_tf\.([A-Za-z_]\w*)", text):
        assert public in [*ppo_tf.__all__, "__version__"], public

"""Odd values for the random tests, and how many of them are tried.

The default run tries the same few each time, `-m slow` many new ones.
"""

import contextlib
import io
import json
import math

import hypothesis
from hypothesis import strategies as st

from ppo_tf.command.settings import SETTINGS

COMMON = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
        hypothesis.HealthCheck.function_scoped_fixture,  # folders, emptied by the tests
    ],
}


def few(count):
    """Settings of a test in the default run: the same examples each time."""
    return hypothesis.settings(max_examples=count, derandomize=True, **COMMON)


def many(count):
    """Settings of a slow test: other examples each time."""
    return hypothesis.settings(max_examples=count, print_blob=True, **COMMON)


ODD_TEXTS = (
    *("nan", "-nan", "inf", "-inf", "Infinity", "1e400", "-1e400", "1e-400", "1e39", "1e-45"),
    *("0", "-0", "-0.0", "1", "-1", "1.0", "1.5", "1e3", "0x10", "1_0", "٣", "½", "9" * 30),
    *(
        "9" * 5000,
        "1" + "0" * 320,
        str(2**31),
        str(2**53),
        str(2**53 + 1),
        str(2**63),
        str(-(2**63)),
    ),
    *("", " ", "none", "None", "null", "true", "True", "FALSE", "yes", "t"),
    *(
        ",",
        ",,",
        "1,",
        ",1",
        "1,,2",
        "64;64",
        "[64]",
        "64,none",
        "1e9,1",
        "64,-1",
        "1," * 200 + "1",
    ),
    *(
        "a",
        "a/b",
        "../x",
        "..",
        "/",
        "a b",
        "\0",
        "\n",
        "\x1b[2J",
        "\u00e9",
        "\udcff",
        "\U0001f600",
    ),
    *("--", "=", "--gamma=1", "'", '"', "%s", "{}", "x" * 10_000, "$(id)", "relu", "glu", "get"),
)
TEXTS = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.sampled_from(sorted({c.name for s in SETTINGS.values() for c in s.choices})),
    st.integers().map(str),
    st.integers(0, 200).map(str),
    st.floats().map(str),
    st.floats(0, 1).map(str),
    st.lists(st.integers(-1, 2**17), max_size=4).map(lambda sizes: ",".join(map(str, sizes))),
    st.text(st.characters(codec="utf-8"), max_size=10),
)
_VALID = {
    bool: st.sampled_from(["true", "false"]),
    int: st.one_of(
        st.integers(1, 70), st.sampled_from([2**8, 2**12, 2**16, 2**31, 2**32, 2**40, 2**53])
    ).map(str),
    float: st.one_of(
        st.floats(0.001, 1), st.sampled_from([1e-37, 1e-30, 1e-12, 1e-6, 2.0, 1e3, 1e6, 1e9])
    ).map(str),
    str: st.sampled_from(["relu", "linear", "softmax", "glu", "observation", "x", "none"]),
}


def valid_texts(setting):
    """Texts of a type, within its limits or at them, which a declaration may well refuse."""
    if setting.choices:
        return st.sampled_from([choice.name for choice in setting.choices])
    element = _VALID[setting.type]
    return st.lists(element, max_size=3).map(",".join) if setting.is_tuple else element


def flags_of(names, least, most):
    """Lists of [(setting, text)], each name once, that are valid at first sight."""
    pairs = [st.tuples(st.just(name), valid_texts(SETTINGS[name])) for name in names]
    return st.lists(st.one_of(pairs), min_size=least, max_size=most, unique_by=lambda pair: pair[0])


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([0, -1, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, -(10**400)]),
        st.floats(),
        st.sampled_from(["", "gae", "64", "none", "../x", "a\nb", "\0", "\udcff", "x" * 3000]),
        st.text(max_size=5),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def places(value, path=()):
    """The paths of all values in a JSON value, itself included."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def replaced(value, path, new):
    """A copy of a JSON value with another value at a path."""
    if not path:
        return new
    copy = json.loads(json.dumps(value))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return copy


def assert_sane(name, value):
    """Asserts what any setting's value must be, whatever its declaration says."""
    for element in value if isinstance(value, tuple) else (value,):
        assert element is None or type(element) in (bool, int, float, str), (name, value)
        if type(element) is int:
            assert 0 <= element <= 2**53, (name, value)
        if type(element) is float:
            assert math.isfinite(element) and 0 <= element <= 1e9, (name, value)
            assert element == 0 or element > 1e-38, (name, value)
        if type(element) is str:
            assert element.encode(), (name, value)
    assert not isinstance(value, tuple) or len(value) <= 100, name


@contextlib.contextmanager
def captured():
    """Context with standard error as text, which takes whatever a real one takes."""
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", newline="")
    told = []
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(io.StringIO()):
        yield told
    stream.flush()
    told.append(stream.buffer.getvalue().decode())


def assert_one_line(told):
    """Asserts that standard error is one line of at most 1000 characters that ends in an error."""
    *lines, last = told.splitlines(keepends=True)
    assert all(line.startswith("warning: ") for line in lines), told
    assert last.startswith("error: ") and last.endswith("\n"), told
    assert len(last) <= 1000, told

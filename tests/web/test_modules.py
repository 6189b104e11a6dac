"""The page's small modules, run in the browser against cases worked by hand."""

from typing import Any

import pytest

from app.web import page
from tests.web.chromium import Visitor


def run(guest: Visitor, module: str, expression: str) -> Any:
    """The value of an expression in which `m` is the module."""
    guest.go("/service")
    source = f"/web/{page().digest}/{module}"
    return guest.page.evaluate(f"async () => {{ const m = await import({source!r}); return {expression}; }}")


def test_ticks_are_round_and_inside(guest: Visitor) -> None:
    """1, 2 or 5 times a power of ten, without binary dust; of epochs whole ones."""
    found = run(
        guest,
        "scales.js",
        "[m.niceTicks(0, 1, 5), m.niceTicks(0.13, 0.31, 4), m.niceTicks(1, 3, 10, true), m.niceTicks(5, 5)]",
    )
    assert found == [[0, 0.2, 0.4, 0.6, 0.8, 1], [0.15, 0.2, 0.25, 0.3], [1, 2, 3], [5]]


def test_ticks_of_a_logarithmic_axis(guest: Visitor) -> None:
    """1, 2, 5 of each power; over many powers these alone; within one power as on any axis."""
    found = run(guest, "scales.js", "[m.logTicks(90, 2200), m.logTicks(1e3, 1e8), m.logTicks(110, 180)]")
    assert found == [
        [100, 200, 500, 1000, 2000],
        [1e3, 1e4, 1e5, 1e6, 1e7, 1e8],
        [120, 140, 160, 180],
    ]


def test_a_scale_puts_values_where_they_belong(guest: Visitor) -> None:
    """Equal ratios are equal lengths on a logarithmic axis, which has no place for 0; shares stay between 0 and 1."""
    found = run(
        guest,
        "scales.js",
        """(() => {
            const log = m.scale({log: true}, [10, 100, 1000], 0, 300);
            const share = m.scale({bounds: [0, 1]}, [0.2, 1], 0, 100);
            return {even: Math.abs((log(100) - log(10)) - (log(1000) - log(100))) < 1e-9, zero: log.has(0),
                    most: Math.max(...share.ticks), one: share(1), same: Number.isFinite(m.scale({}, [7, 7], 0, 10)(7))};
        })()""",
    )
    assert found == {"even": True, "zero": False, "most": 1, "one": 100, "same": True}


def test_numbers_are_shown_as_people_read_them(guest: Visitor) -> None:
    found = run(
        guest,
        "format.js",
        """[m.bytes(113250), m.bytes(999), m.bytes(999999), m.count(13770553), m.percent(0.6667), m.percent(null),
            m.duration(9.94), m.duration(61), m.duration(7500), m.short(41888768), m.significant(0.00012345, 3), m.significant(1234567, 3)]""",
    )
    assert found == [
        *("113 kB", "999 B", "1.00 MB", "13,770,553", "66.7 %", "\u2013"),
        *("9.9 s", "1 min 1 s", "2 h 5 min", "41.9 M", "1.23e-4", "1.23e6"),
    ]


def test_a_stream_of_events_is_read_whatever_the_order_of_its_lines(guest: Visitor) -> None:
    found = run(
        guest,
        "api.js",
        r"""[m.parsedEvent("id: 7\nevent: progress\ndata: {\"done\":\ndata: 1}"), m.parsedEvent(": still here")]""",
    )
    assert found == [{"seq": 7, "type": "progress", "data": {"done": 1}}, None]


@pytest.mark.parametrize("text", ["it's", "$(rm -rf /)", "`x`", "a\\b", 'say "no"', "two\nlines"])
def test_the_curl_means_what_the_form_says(guest: Visitor, text: str) -> None:
    """A shell gives back every character of a name, and runs none of it."""
    import json
    import subprocess

    command = run(guest, "curl.js", f"m.curlOf('/v1/jobs', {{name: {json.dumps(text)}}})")
    printed = subprocess.run(
        ["sh", "-c", command.replace("curl ", "printf '%s\\n' ", 1)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    body = printed.partition("--json\n")[2]
    assert json.loads(body) == {"name": text}


def test_missing_values_come_last_whichever_way_a_table_is_sorted(guest: Visitor) -> None:
    found = run(
        guest,
        "sortable.js",
        "[true, false].map((rising) => m.sorted([{a: 2}, {a: null}, {a: 10}, {a: 1}], (row) => row.a, rising).map((row) => row.a))",
    )
    assert found == [[1, 2, 10, None], [10, 2, 1, None]]


def test_a_schema_becomes_a_field_with_its_limits(guest: Visitor) -> None:
    """Kinds, limits and what was typed, as pydantic writes them."""
    found = run(
        guest,
        "schema.js",
        """(() => {
            const share = {anyOf: [{type: "number", minimum: 0, maximum: 1}, {type: "null"}], default: null};
            const {schema, nullable} = m.withoutNull(share, {});
            const list = {type: "array", items: {type: "number"}};
            return [m.kindOf(schema, {}), nullable, m.limits(schema), m.shownDefault(share), m.typed("0.5", schema, {}), m.typed("much", schema, {}),
                    m.typed("1, 2", list, {}), m.kindOf({type: "array", items: {enum: ["a"]}}, {}), m.kindOf({anyOf: [{type: "integer"}, {type: "string"}]}, {}),
                    m.limits({type: "integer", exclusiveMinimum: 0})];
        })()""",
    )
    assert found == [
        *("number", True, "0 to 1", "none", 0.5, "much", [1, 2], "choices", "other"),
        "more than 0, a whole number",
    ]


def test_values_of_an_axis_survive_being_shown(guest: Visitor) -> None:
    """What is shown is read again as the same values, also names with commas and lists."""
    found = run(
        guest,
        "axes_form.js",
        """[[0, 0.2], ["none", "light"], ["a,b", "c"], [[1], [2]], ["7"], [null, true]].map((values) => JSON.stringify(m.valuesOf(m.valuesText(values))) === JSON.stringify(values))""",
    )
    assert found == [True] * 6

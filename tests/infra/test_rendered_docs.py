"""What is rendered into docs/ is in step with the templates and the code, and leaves nothing out."""

from pathlib import Path

import pytest

from customization.json_types import JsonObject, as_object, as_text
from docs.render import all as pages
from docs.render.deployment import Policies
from docs.render.graph import SECTIONS, Machine
from docs.render.layers import layers, without_shortcuts
from docs.render.pages import filled, marks, table
from rehearsal.templates import at, listed, resources
from tests.infra.machine import all_states


@pytest.fixture(scope="module")
def machine(templates: dict[str, JsonObject]) -> Machine:
    return Machine(templates["pipeline"])


@pytest.mark.usefixtures("templates")
def test_every_rendered_part_is_what_the_code_renders(assembly: Path) -> None:
    stale = [path.name for path, text in pages.rendered(assembly).items() if path.read_text() != text]
    assert stale == [], "write them anew: make docs"


def test_every_state_is_in_one_section_with_its_comment(machine: Machine) -> None:
    assert set(machine.section_of) == set(machine.states)
    text = machine.sections()
    for name, state in all_states(machine.definition).items():
        assert f"| `{name}` | {state['Type']} | {as_text(state['Comment'], name)} |" in text


def test_every_way_between_states_is_drawn_or_said(machine: Machine) -> None:
    for section in SECTIONS:
        drawn = machine.diagram(section)
        for edge in machine.edges:
            if edge.source in machine.members(section) and not edge.is_said_once:
                ways = [line.split() for line in drawn.splitlines() if "->" in line]
                assert any((way[0], way[-1]) == (edge.source, edge.target) for way in ways), edge


def test_every_task_whose_error_leads_elsewhere_is_named(machine: Machine) -> None:
    said = machine.unusual_catches()
    for name, state in machine.states.items():
        caught = {as_text(as_object(rule, name)["Next"], "Next") for rule in listed(state.get("Catch", []))}
        if state["Type"] in {"Task", "Map"} and caught != {"RecordFailure"}:
            assert f"| `{name}` |" in said


def test_the_layers_have_the_arrows_that_the_rules_name() -> None:
    drawn = {line.strip() for line in layers().splitlines() if "-->" in line}
    ways = ("tests --> handlers", "rehearsal --> domain", "handlers --> domain", "domain --> gateway")
    assert {*ways, "gateway --> contract"} <= drawn


def test_an_arrow_that_a_longer_way_implies_is_left_out_and_a_circle_is_no_layering() -> None:
    ways = {("handlers", "domain"), ("domain", "gateway")}
    assert without_shortcuts({*ways, ("handlers", "gateway")}) == ways
    with pytest.raises(ValueError, match="import each other: domain, gateway"):
        without_shortcuts({*ways, ("gateway", "domain")})


def test_a_statement_of_a_policy_that_nobody_has_words_for_stops_the_rendering(
    templates: dict[str, JsonObject],
) -> None:
    policy = next(iter(resources(templates["pipeline"], "AWS::IAM::ManagedPolicy").values()))
    statement = as_object(listed(at(policy, "Properties", "PolicyDocument", "Statement"))[0], "Statement")
    before = statement["Resource"]
    statement["Resource"] = {"Fn::Sub": "arn:aws:s3:::${Bucket}"}
    try:
        with pytest.raises(ValueError, match="no words for"):
            Policies(templates).permissions("pipeline")
    finally:
        statement["Resource"] = before


def test_a_page_keeps_what_people_wrote_around_a_rendered_part() -> None:
    page = "above\n\n<!-- begin part: written by make docs -->\nold\n<!-- end part -->\n\nbelow\n"
    assert marks(page) == ["part"]
    new = filled(page, {"part": "new"})
    assert new == page.replace("old\n", "\nnew\n\n")
    assert filled(new, {"part": "new"}) == new
    with pytest.raises(KeyError, match="part"):
        filled(page, {})


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert table(("a", "b"), [("x|y", "z")]).splitlines()[2] == r"| x\|y | z |"

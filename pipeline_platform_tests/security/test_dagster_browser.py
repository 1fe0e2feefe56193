"""The Dagster UI in a real browser: what is greyed for whom, who one is, and how a login ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest
import redis
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.sessions import SessionStore
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.browser import browsing
from pipeline_platform_tests.oracle import wait_for
from pipeline_platform_tests.security.dagster_ui import Doors

PATIENCE = 60_000.0  # milliseconds: the first page of a busy machine takes its time
PASSWORD = "seven green bottles"
LINEAGE, AUTOMATION, LOCATIONS = "/asset-groups", "/automation", "/deployment/locations"
SWITCHES = """may => {
    const found = [...document.querySelectorAll('label[class*=formatSwitch] input')];
    return found.length > 3 && found.every(each => each.disabled !== may);
}"""
JOB = "/locations/pipeline_platform/jobs/check_streams"


@pytest.fixture(scope="module")
def doors(up: Up) -> Doors:
    return Doors.of(up)


@pytest.fixture(scope="module")
def queue(doors: Doors) -> Iterator[redis.Redis]:
    """Where the sessions are."""
    client = connect(doors.redis_url)
    yield client
    client.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser, queue: redis.Redis) -> Iterator[BrowserContext]:
    """Somebody's browser, without cookies; logins are bounded by the minute, which these tests are not about."""
    for name in queue.scan_iter("pp:login-tries:*"):
        queue.delete(name)
    context = browser.new_context(viewport={"width": 1500, "height": 900})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A tab."""
    return context.new_page()


@pytest.fixture
def seen_as(context: BrowserContext, page: Page, doors: Doors) -> Callable[[str, str], Page]:
    """The tab, logged in with a role, at a path."""

    def go(role: str, path: str) -> Page:
        context.add_cookies([{"name": "pp_session", "value": doors.cookie(doors.keys[role]), "url": doors.base}])
        page.goto(doors.base + path)
        return page

    return go


def there(found: Locator) -> Locator:
    """The first of what is found, once it can be seen."""
    expect(found.first).to_be_visible(timeout=PATIENCE)
    return found.first


def button(page: Page, text: str) -> Locator:
    return there(page.get_by_role("button", name=text))


def badge(page: Page, who: str) -> None:
    """Expects the page to say who is logged in."""
    there(page.get_by_text(who, exact=True))


def at_the_login(page: Page) -> None:
    """Expects the login page, and no data beside it."""
    expect(page.get_by_label("Password or API key")).to_be_visible(timeout=PATIENCE)
    assert "telemetry" not in page.content()


def log_in(page: Page, base: str, name: str, password: str) -> None:
    page.goto(f"{base}/login")
    page.get_by_label("User", exact=True).fill(name)
    page.get_by_label("Password or API key").fill(password)
    page.get_by_role("button", name="Log in").click()


def test_the_link_of_the_command_leads_into_the_ui(up: Up, page: Page, doors: Doors) -> None:
    link = up.run("login").stdout.strip()
    assert link.startswith(f"{doors.base}/login#code=")
    page.goto(link)
    key = json.loads((up.state_dir / "connections.json").read_text())["api_key"].split("_")[1]
    badge(page, f"key {key} · admin")
    assert "code" not in page.url


@pytest.mark.parametrize(("role", "may"), [("viewer", False), ("operator", True)])
def test_what_a_role_may_not_do_is_greyed(seen_as: Callable[[str, str], Page], up: Up, role: str, may: bool) -> None:
    page = seen_as(role, LINEAGE)
    expect(button(page, "Materialize all")).to_be_enabled(enabled=may, timeout=PATIENCE)
    expect(button(page, "Reload definitions")).to_be_disabled()
    run = up.graphql("{ runsOrError(limit: 1) { ... on Runs { results { runId } } } }")["runsOrError"]["results"][0]
    page = seen_as(role, f"/runs/{run['runId']}")
    expect(button(page, "Re-execute all")).to_be_enabled(enabled=may, timeout=PATIENCE)
    page = seen_as(role, LOCATIONS)
    expect(button(page, "Reload all")).to_be_disabled()
    if may:
        page = seen_as(role, f"{JOB}/playground")
        expect(button(page, "Launch Run")).to_be_enabled(timeout=PATIENCE)
    else:
        page = seen_as(role, JOB)
        expect(there(page.get_by_role("tab", name="Launchpad"))).to_be_disabled()


@pytest.mark.parametrize(("role", "may"), [("viewer", False), ("operator", True)])
def test_the_switches_of_schedules_and_sensors_are_for_operators(
    seen_as: Callable[[str, str], Page], role: str, may: bool
) -> None:
    page = seen_as(role, AUTOMATION)
    page.wait_for_function(SWITCHES, arg=may)
    button(page, "ago").hover()  # by then what they are about has been loaded, too
    page.wait_for_function(SWITCHES, arg=may)


def test_the_badge_says_who_and_logging_out_leaves_nothing_behind(
    seen_as: Callable[[str, str], Page], doors: Doors
) -> None:
    page = seen_as("viewer", LINEAGE)
    badge(page, f"key {doors.keys['viewer'].split('_')[1]} · viewer")
    there(page.get_by_text("telemetry"))
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{doors.base}/login?out", timeout=PATIENCE)
    page.go_back()
    expect(page).to_have_url(f"{doors.base}/login?next={LINEAGE}", timeout=PATIENCE)
    at_the_login(page)


def test_a_session_that_has_ended_leads_to_the_login(
    seen_as: Callable[[str, str], Page], context: BrowserContext, doors: Doors, queue: redis.Redis
) -> None:
    page = seen_as("admin", LINEAGE)
    there(page.get_by_text("telemetry"))
    [cookie] = (each.get("value", "") for each in context.cookies() if each.get("name") == "pp_session")
    SessionStore(queue, absolute=60, idle=60).end(cookie)

    def out() -> bool:
        page.goto(doors.base + LOCATIONS)
        return page.url.endswith(f"/login?next={LOCATIONS}")

    wait_for("the next page is the login", out, 30)
    at_the_login(page)


def test_a_user_logs_in_by_password_until_disabled(up: Up, page: Page, doors: Doors) -> None:
    def users(*arguments: str, said: str = "") -> None:
        command = [*up.command, "users", *arguments, "--state-dir", str(up.state_dir)]
        subprocess.run(command, input=said, text=True, env=up.env, check=True, capture_output=True, timeout=120)

    users("add", "otto", "--role", "operator", "--password-stdin", said=f"{PASSWORD}\n")
    log_in(page, doors.base, "otto", "not the password at all")
    expect(page.get_by_role("alert")).to_contain_text("did not match", timeout=PATIENCE)
    log_in(page, doors.base, "otto", PASSWORD)
    badge(page, "otto · operator")
    users("disable", "otto")

    def out() -> bool:
        page.goto(doors.base + LINEAGE)
        return page.url.endswith(f"/login?next={LINEAGE}")

    wait_for("the user is out", out, 30)
    log_in(page, doors.base, "otto", PASSWORD)
    expect(page.get_by_role("alert")).to_contain_text("did not match", timeout=PATIENCE)

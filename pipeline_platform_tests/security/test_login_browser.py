"""The login page in a real browser: logging in and out, links, expiry, and what the page's policy lets run."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urljoin

import pytest
import redis
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from pipeline_platform.access.config import AccessConfig
from pipeline_platform.access.links import one_time_link
from pipeline_platform.local.ports import free_port
from pipeline_platform_tests.browser import browsing
from pipeline_platform_tests.security import access_kit
from pipeline_platform_tests.security.access_kit import key, make_doorkeeper, served, small_app

client, journal, base = access_kit.client, access_kit.journal, access_kit.base


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the file."""
    with browsing() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Somebody's browser, without cookies."""
    context = browser.new_context(viewport={"width": 360, "height": 640})
    yield context
    context.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser said on its console."""
    return []


@pytest.fixture
def page(context: BrowserContext, complaints: list[str]) -> Page:
    """A tab."""

    def heard(message: ConsoleMessage) -> None:
        known = "status of 401" in message.text or message.location["url"].endswith("/favicon.ico")
        if message.type in ("error", "warning") and not known:
            complaints.append(message.text)

    page = context.new_page()
    page.on("console", heard)
    return page


def who(page: Page) -> str:
    """Whom the server knows the tab as; empty for nobody."""
    answer = page.request.get(urljoin(page.url, "/whoami"))
    return str(answer.json()["name"]) if answer.ok else ""


def test_wrong_password_right_key_log_out(page: Page, base: str, client: redis.Redis, complaints: list[str]) -> None:
    key_id, token = key(client, "read")
    page.goto(f"{base}/?a=1")
    expect(page).to_have_url(f"{base}/login?next=/%3Fa%3D1")
    assert page.title() == "Log in - Pipeline Platform"
    page.get_by_label("User", exact=True).fill("otto")
    page.get_by_label("Password or API key").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("did not match")
    expect(page.get_by_label("User", exact=True)).to_have_value("otto")
    expect(page.get_by_label("Password or API key")).to_have_value("")
    page.get_by_label("User", exact=True).fill("")
    page.get_by_label("Password or API key").fill(token)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{base}/?a=1")
    page.goto(f"{base}/login")
    expect(page.get_by_text(f"key {key_id} (viewer)")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("status")).to_contain_text("You are logged out")
    page.goto(base)
    expect(page).to_have_url(f"{base}/login")
    assert complaints == []


def test_a_link_logs_in_by_itself_and_leaves_no_code_behind(
    page: Page, base: str, client: redis.Redis, complaints: list[str]
) -> None:
    key_id, token = key(client, "admin")
    link = one_time_link(client, base, token)
    page.goto(link.replace("#", "?next=/open#"))
    expect(page).to_have_url(f"{base}/open")
    assert who(page) == f"key {key_id}"
    page.go_back()
    assert "code" not in page.url
    assert complaints == []


def test_a_link_that_was_used_says_so(context: BrowserContext, page: Page, base: str, client: redis.Redis) -> None:
    link = one_time_link(client, base, key(client, "admin")[1])
    page.goto(link)
    expect(page).to_have_url(f"{base}/")
    context.clear_cookies()
    page.goto("about:blank")
    page.goto(link)
    expect(page.get_by_role("alert")).to_contain_text("used already")
    assert "#" not in page.url


def test_a_link_does_not_change_behind_ones_back_who_one_is(page: Page, base: str, client: redis.Redis) -> None:
    (first, token), (second, other) = key(client, "read"), key(client, "admin")
    page.goto(one_time_link(client, base, token))
    expect(page).to_have_url(f"{base}/")
    page.goto(one_time_link(client, base, other))
    expect(page.get_by_text(f"key {first} (viewer)")).to_be_visible()
    assert "#" not in page.url
    assert who(page) == f"key {first}"
    page.get_by_role("button", name="Log in with the link instead").click()
    expect(page).to_have_url(f"{base}/")
    assert who(page) == f"key {second}"


def test_a_login_that_is_over_leads_to_the_login(redis_url: str, browser: Browser, client: redis.Redis) -> None:
    config = AccessConfig(redis_url, free_port())
    doorkeeper = make_doorkeeper(redis_url, config.names, idle=1.0)
    with served(small_app(doorkeeper), config.port) as base:
        context = browser.new_context()
        page = context.new_page()
        page.goto(one_time_link(client, base, key(client, "read")[1]))
        expect(page).to_have_url(f"{base}/")
        page.wait_for_timeout(3_500)  # longer than the idle limit and the cache
        page.goto(f"{base}/operators")
        expect(page).to_have_url(f"{base}/login?next=/operators")
        context.close()
    doorkeeper.close()


def test_another_site_can_neither_frame_the_page_nor_send_its_form(
    browser: Browser, base: str, client: redis.Redis
) -> None:
    """From localhost, which is another origin than 127.0.0.1, but one of ours; and from a page without an origin."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(one_time_link(client, base, key(client, "admin")[1]))
    expect(page).to_have_url(f"{base}/")
    evil = context.new_page()
    evil.set_content(f'<iframe src="{base}/login"></iframe><form method="post" action="{base}/logout"></form>')
    evil.wait_for_timeout(500)
    framed = evil.frames[1]
    assert "Pipeline Platform" not in framed.content()
    evil.evaluate("document.forms[0].submit()")
    expect(evil.get_by_text("other sites")).to_be_visible()
    assert who(page) != ""
    context.close()


def test_nothing_runs_that_is_not_the_pages_own(page: Page, base: str) -> None:
    page.goto(f"{base}/login")
    refused = page.evaluate(
        """() => new Promise(done => {
            document.addEventListener('securitypolicyviolation', event => done(event.violatedDirective));
            const script = document.createElement('script');
            script.textContent = 'window.ran = true';
            document.body.append(script);
        })"""
    )
    assert refused.startswith("script-src")
    assert page.evaluate("window.ran") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_read_and_used_on_a_small_screen(browser: Browser, base: str, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 640}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{base}/login")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for text in ("h1", "p", "label", ".hint", "button"):
        assert page.evaluate(_CONTRAST, text) >= 4.5, text
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "name"
    context.close()


# WCAG's contrast of a text with what is painted behind it.
_CONTRAST = """selector => {
    const light = colour => {
        const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(part => part / 255);
        const [r, g, b] = parts.map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const element = document.querySelector(selector);
    let behind = element;
    while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
    const pair = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(light).sort();
    return (pair[1] + 0.05) / (pair[0] + 0.05);
}"""

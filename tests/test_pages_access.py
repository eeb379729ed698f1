"""Accessibility of the pages: axe-core, the keyboard alone, a narrow screen, in light and in dark."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from sessionapi.web import branding
from tests.support.api_client import PASSWORD
from tests.support.browser import NEEDS_CHROMIUM
from tests.support.pages import GATED, PUBLIC, contrast, says_why, sign_in, signed_in, visitor
from tests.support.server import Server, serving

pytestmark = NEEDS_CHROMIUM
NARROW = {"width": 360, "height": 740}
LONG = "a.very.long.username.that.somebody.chose.because.it.was.allowed@example.com"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    settings = {"brand_name": "A brand with a long name, Incorporated", "brand_color": "#f2c230"}
    with serving(tmp_path_factory.mktemp("pages") / "var", **settings) as it:
        it.sign_up(LONG, email=f"{LONG}.example.org", device_name="W" * 100)
        yield it


def open_page(page: Page, path: str) -> None:
    if path in GATED:
        sign_in(page, LONG, start=f"/sign-in?next={path}")
        expect(page.get_by_role("button", name="Account of")).to_be_enabled()
        expect(page.locator("[data-member=data]:empty, [aria-busy=true]")).to_have_count(0)
    else:
        page.goto(path)


def states(page: Page, path: str) -> Iterator[str]:
    """Visit each state of a page that looks different."""
    open_page(page, path)
    yield "as it opens"
    if path in PUBLIC:
        page.locator("[type=submit]").click()
        expect(page.locator(".wrong:visible").first).to_be_visible()
        yield "refused"
        page.goto(f"{path.partition('#')[0]}?reason=idle")
        yield "with a reason"
        return
    page.get_by_role("button", name="Account of").click()
    yield "the menu"
    page.keyboard.press("Escape")
    if path == "/account":
        for what in ("username", "e-mail", "password"):
            page.get_by_role("button", name=f"Change {what}").click()
            yield f"changing the {what}"
        page.get_by_role("button", name="Delete account").click()
        yield "the question"
        page.keyboard.press("Escape")
        page.evaluate("document.getElementById('confirm-password').showModal()")
        yield "the password"
    page.evaluate("document.getElementById('ending').showModal()")
    yield "the warning"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", [*PUBLIC, *GATED])
def test_axe_finds_nothing(chromium: Browser, server: Server, path, scheme):
    """axe-core, all its rules, in every state of the page."""
    with visitor(chromium, server, color_scheme=scheme, reduced_motion="reduce") as page:
        for state in states(page, path):
            found = Axe().run(page)
            assert found.violations_count == 0, f"{state}: {found.generate_report()}"


SHADES = """(sheets) => {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [sheet];
  const probe = document.body.appendChild(document.createElement("i"));
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    probe.style.color = colour;
    canvas.fillStyle = getComputedStyle(probe).color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const pairs = [
    ["var(--on-accent)", "var(--accent)"], ["var(--on-accent)", "var(--accent-pressed)"],
    ["var(--link)", "var(--card)"], ["var(--link)", "var(--ground)"], ["var(--link)", "var(--hover)"],
    ["var(--link)", "color-mix(in srgb, var(--link) 10%, var(--card))"],
  ];
  return sheets.map((text) => {
    sheet.replaceSync(text);
    return pairs.map((pair) => pair.map(rgb));
  });
}"""
"""Returns the pairs of text and background colours, as painted, for each given version of /theme.css."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_with_every_accent(chromium: Browser, server: Server, scheme):
    """WCAG 2.2, 1.4.3. Fails with `l` instead of a bounded lightness in pages.css."""
    steps = range(0, 256, 51)
    accents = [f"#{red:02x}{green:02x}{blue:02x}" for red in steps for green in steps for blue in steps]
    with visitor(chromium, server, color_scheme=scheme) as page:
        page.goto("/sign-in")
        shades = page.evaluate(SHADES, [branding.stylesheet(accent) for accent in accents])
    assert len({str(pairs) for pairs in shades}) == len(accents) == 216
    for accent, pairs in zip(accents, shades, strict=True):
        for text, ground in pairs:
            assert contrast(text, ground) >= 4.5, (accent, text, ground)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("accent", ["#ffffff", "#ffff00", "#000000", "#ff0000", "#0000ff", "#808080"])
def test_axe_finds_nothing_with_any_accent(chromium: Browser, server: Server, accent, scheme):
    with visitor(chromium, server, color_scheme=scheme, reduced_motion="reduce") as page:
        theme = branding.stylesheet(accent)
        page.route("**/theme.css", lambda route: route.fulfill(body=theme, content_type="text/css"))
        for path in ("/sign-in?reason=idle", "/account"):
            open_page(page, path)
            found = Axe().run(page)
            assert found.violations_count == 0, f"{path}: {found.generate_report()}"


@pytest.mark.parametrize("path", [*PUBLIC, *GATED])
def test_nothing_scrolls_sideways_on_a_narrow_screen(chromium: Browser, server: Server, path):
    """360 pixels, with a long name, a long e-mail, a long device and a long brand."""
    with visitor(chromium, server, viewport=NARROW, is_mobile=True) as page:
        for state in states(page, path):
            assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"], state
            wide = page.evaluate(
                """() => [...document.querySelectorAll("body *")].filter((each) => each.checkVisibility()
                  && each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.outerHTML)"""
            )
            assert wide == [], state


def tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until the given element has the focus, which must be visible on the way."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if wanted.evaluate("each => each === document.activeElement"):
            ring = wanted.evaluate(
                "each => getComputedStyle(each).outlineStyle + getComputedStyle(each).boxShadow"
            )
            assert ring != "nonenone"
            return
    raise AssertionError(f"the keyboard doesn't reach {wanted}")


def test_every_flow_by_the_keyboard_alone(chromium: Browser, server: Server):
    with visitor(chromium, server) as page:
        keys, button = page.keyboard, page.get_by_role
        page.goto("/sign-in")
        tab_to(page, button("link", name="Sign up"))
        keys.press("Enter")
        expect(page.get_by_label("Username")).to_be_focused()
        keys.type("keys")
        tab_to(page, page.get_by_label("Password", exact=True))
        keys.type(PASSWORD)
        tab_to(page, button("button", name="Show password"))
        keys.press("Space")
        expect(page.get_by_label("Password", exact=True)).to_have_attribute("type", "text")
        tab_to(page, page.get_by_label("Stay signed in"))
        keys.press("Space")
        tab_to(page, button("button", name="Create account"))
        keys.press("Enter")
        signed_in(page, "keys")
        tab_to(page, button("button", name="Account of keys"))
        keys.press("Enter")
        tab_to(page, button("link", name="Manage account"))
        keys.press("Enter")
        expect(page.locator(".device .badge")).to_be_visible()
        tab_to(page, button("button", name="Change username"))
        keys.press("Enter")
        keys.type("keys.only\n")
        expect(page.locator(".row-value").first).to_have_text("keys.only")
        tab_to(page, button("button", name="Change e-mail"))
        keys.press("Enter")
        keys.press("Escape")
        expect(button("button", name="Change e-mail")).to_be_focused()
        tab_to(page, button("button", name="Change password"))
        keys.press("Enter")
        keys.type(PASSWORD)
        tab_to(page, page.get_by_label("New password", exact=True))
        keys.type("mauve trombone orbits a cactus\n")
        expect(page.locator("#toast")).to_contain_text("Your password is changed.")
        tab_to(page, button("button", name="Account of keys.only"))


def test_devices_and_the_deletion_by_the_keyboard_alone(chromium: Browser, server: Server):
    tokens = server.sign_up("keys.too", device_name="A phone")
    assert tokens
    with visitor(chromium, server) as page:
        keys = page.keyboard
        page.goto("/sign-in?next=/account")
        keys.type("keys.too")
        keys.press("Tab")
        keys.type(f"{PASSWORD}\n")
        phone = page.get_by_role("button", name="Sign out A phone, active just now")
        expect(phone).to_be_visible()
        tab_to(page, page.get_by_role("button", name="Sign out all others"))
        keys.press("Enter")
        keys.press("Escape")
        expect(page.get_by_role("button", name="Sign out all others")).to_be_focused()
        tab_to(page, phone)
        keys.press("Enter")
        expect(page.locator("#devices-heading")).to_be_focused()
        tab_to(page, page.get_by_role("button", name="Delete account"))
        keys.press("Enter")
        tab_to(page, page.get_by_role("button", name="Delete permanently"))
        keys.press("Enter")
        says_why(page, "The account was deleted.")


def test_signing_out_by_the_keyboard_alone(chromium: Browser, server: Server):
    with visitor(chromium, server) as page:
        server.sign_up("keys.three")
        sign_in(page, "keys.three")
        signed_in(page, "keys.three")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        tab_to(page, page.get_by_role("button", name="Account of"))
        page.keyboard.press("Space")
        tab_to(page, page.get_by_role("button", name="Sign out"))
        page.keyboard.press("Space")
        says_why(page, "You are signed out.")

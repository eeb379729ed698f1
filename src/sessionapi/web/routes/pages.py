"""The hosted pages. They contain no data of the user, because their scripts fetch it with the access token.

A page that is not declared `public` is sent only to a browser whose cookie holds an active session. All other
browsers are redirected to the sign-in page. Reading the cookie neither rotates it nor moves the idle clock.
"""

from pathlib import Path
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse
from starlette.templating import Jinja2Templates

from sessionapi import origins
from sessionapi.errors import AuthenticationError
from sessionapi.settings import Settings
from sessionapi.users import password_policy
from sessionapi.web import branding, cookies
from sessionapi.web.dependencies import ContainerDep, app_of
from sessionapi.web.end_reasons import REASONS

router = APIRouter(include_in_schema=False)

TEMPLATES = Jinja2Templates(directory=Path(__file__).parents[1] / "templates")
TEMPLATES.env.globals["password_policy"] = password_policy
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
}
ENTRANCES = ("/sign-in", "/sign-up")
"""Pages that redirect a user who is already signed in."""
MAX_WARNING = 120
"""Maximum seconds between the warning and the end of a session (WCAG 2.2.1 requires at least 20)."""
MAX_NEXT = 2000
"""Maximum length of the URL to which a sign-in returns."""


def page(path: str, name: str, *, public: bool = False) -> None:
    """Serve a template. Unless it is `public`, only browsers with an active session get it."""

    async def serve(request: Request) -> Response:
        refused = await _refusal(request)
        if refused is not None and not public:
            return _to_sign_in(request, refused.reason)
        if refused is None and path in ENTRANCES:
            return _redirect(_next(request))
        return _render(request, name)

    router.add_api_route(path, serve, methods=["GET"], name=name)


async def _refusal(request: Request) -> AuthenticationError | None:
    """Return the error of the cookie, or None if it holds the token of an active session."""
    container = app_of(request)
    try:
        await container.refreshes.validate(cookies.read(request, container.settings) or "")
    except AuthenticationError as refused:
        return refused
    return None


def _render(request: Request, name: str) -> Response:
    settings = app_of(request).settings
    shown = {
        "name": name,
        "brand": settings.brand_name,
        "signup": settings.signup == "open",
        "notice": REASONS.get(request.query_params.get("reason", ""), ""),
        "next": _next(request),
        "kept": _next_query(request),
        "home": settings.public_url,
        "origins": " ".join(_origins_here(request)),
        "loopback": settings.on_loopback,
        "secure": settings.secure_cookies,
        "after_sign_out": settings.after_sign_out_url,
        "warn_before": min(MAX_WARNING, settings.idle_timeout // 5, settings.short_idle_timeout // 5),
    }
    return TEMPLATES.TemplateResponse(request, f"{name}.html", shown, headers=HEADERS)


def _origins_here(request: Request) -> list[str]:
    """Return the origins that this page may have: PUBLIC_URL's, and listed ones with the requested host.

    The script of the page compares them with its origin. It does not need the other listed origins, so they
    are not published.
    """
    settings = app_of(request).settings
    host = request.headers.get("host", "")
    listed = [each for each in settings.allowed_origins if each.endswith(f"://{host}")]
    return [origins.origin_of(settings.public_url), *listed]


def _to_sign_in(request: Request, reason: str | None) -> Response:
    """Redirect to the sign-in page, which returns to the requested page afterwards."""
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    back = {} if target == app_of(request).settings.after_sign_in_url else {"next": target}
    query = urlencode({**back, **({"reason": reason} if reason else {})})
    return _redirect("/sign-in" + (f"?{query}" if query else ""))


def _redirect(target: str) -> Response:
    return RedirectResponse(target, 303, headers={"Cache-Control": "no-store"})


def _next(request: Request) -> str:
    """Return the URL to open after a sign-in: `next` if `stays_home` allows it, else that in the settings."""
    settings = app_of(request).settings
    target = request.query_params.get("next", "")
    after = settings.after_sign_up_url if request.url.path == "/sign-up" else settings.after_sign_in_url
    return target if stays_home(target, settings) else after


def _next_query(request: Request) -> str:
    """Return the query string that carries `next` from the sign-in page to the sign-up page and back."""
    target = request.query_params.get("next", "")
    return f"?{urlencode({'next': target})}" if stays_home(target, app_of(request).settings) else ""


def stays_home(target: str, settings: Settings) -> bool:
    r"""Return whether a URL is a path of this service, or has its origin or one in ALLOWED_ORIGINS.

    Browsers read `\` as `/` and drop tabs and line ends, so a URL with one of them is refused. `//host` is
    another host. An origin must be spelled as it is listed, so that it can be read in one way only.
    """
    plain = target.isascii() and target.isprintable() and not set(target) & set('\\ "<>')
    if not plain or len(target) > MAX_NEXT:
        return False
    if target.startswith("/"):
        return not target.startswith("//")
    scheme, _, rest = target.partition("://")
    origin = f"{scheme}://{rest.partition('/')[0]}"
    return scheme in ("http", "https") and origin in settings.own_origins


page("/", "home")
page("/account", "account")
page("/sign-in", "sign-in", public=True)
page("/sign-up", "sign-up", public=True)
page("/reset-password", "reset-password", public=True)


@router.get("/.well-known/change-password")
async def change_password() -> Response:
    """Redirect password managers to the page that changes the password (W3C, change-password-url)."""
    return _redirect("/account#password")


@router.get("/theme.css")
async def theme_css(container: ContainerDep) -> Response:
    """Return the CSS with the accent colour in the settings."""
    return _of_the_brand(branding.stylesheet(container.settings.brand_color), "text/css")


@router.get("/mark.svg")
async def mark(container: ContainerDep) -> Response:
    """Return the mark of the brand, which is also the icon of the pages."""
    text = branding.mark(container.settings.brand_color, container.settings.brand_name)
    return _of_the_brand(text, "image/svg+xml")


def _of_the_brand(text: str, media_type: str) -> Response:
    return Response(text, media_type=media_type, headers={"Cache-Control": "no-cache"})

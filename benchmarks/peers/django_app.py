"""django-allauth headless as its documentation sets it up, and a bare Django view, for gunicorn.

`BENCH_APP=allauth|bare BENCH_DATABASE=path gunicorn django_app:application`, in a separate environment.
"""

import os

from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import include, path

ALLAUTH = os.environ["BENCH_APP"] == "allauth"
COMMON = {
    "SECRET_KEY": "a secret of the benchmarks, with more than 32 bytes",
    "ALLOWED_HOSTS": ["127.0.0.1"],
    "ROOT_URLCONF": __name__,
    "USE_TZ": True,
    "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
}
ALLAUTH_ONLY = {
    "INSTALLED_APPS": [
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "allauth",
        "allauth.account",
        "allauth.headless",
        "allauth.usersessions",
    ],
    "MIDDLEWARE": [
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
        "allauth.account.middleware.AccountMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
        }
    ],
    "AUTHENTICATION_BACKENDS": [
        "django.contrib.auth.backends.ModelBackend",
        "allauth.account.auth_backends.AuthenticationBackend",
    ],
    "DATABASES": {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("BENCH_DATABASE", ":memory:"),
            "CONN_MAX_AGE": None,
            "OPTIONS": {
                "timeout": 60,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL;",
            },
        }
    },
    "HEADLESS_ONLY": True,
    "ACCOUNT_LOGIN_METHODS": {"username"},
    "ACCOUNT_SIGNUP_FIELDS": ["username*", "password1*"],
    "ACCOUNT_EMAIL_VERIFICATION": "none",
    "ACCOUNT_RATE_LIMITS": False,  # the load comes from one IP address
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.PBKDF2PasswordHasher"],
}
settings.configure(**COMMON, **(ALLAUTH_ONLY if ALLAUTH else {}))
application = get_wsgi_application()


def bare(request):
    return JsonResponse({"data": "Protected data", "user_id": "1", "session_id": "s" * 32})


if ALLAUTH:
    from allauth.headless.contrib.ninja.security import x_session_token_auth
    from ninja import NinjaAPI

    call_command("migrate", verbosity=0)
    api = NinjaAPI()

    @api.get("/protected", auth=[x_session_token_auth])
    def protected(request):
        token = request.headers["X-Session-Token"]
        return {"data": "Protected data", "user_id": str(request.auth.pk), "session_id": token}

    urlpatterns = [
        path("accounts/", include("allauth.urls")),
        path("_allauth/", include("allauth.headless.urls")),
        path("", api.urls),
    ]
else:
    urlpatterns = [path("protected", bare)]

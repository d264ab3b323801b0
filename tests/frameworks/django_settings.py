"""Django's settings, of which a process has one set, for all tests that serve Django."""

from __future__ import annotations

import django
from django.conf import settings
from django.urls import clear_url_caches


def use(urls: str) -> None:
    """From now on requests are answered by `urlpatterns` of the module of that name."""
    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="for tests",
            DEFAULT_CHARSET="utf-8",
            LOGGING_CONFIG=None,
            USE_TZ=True,
        )
        django.setup()
    settings.ROOT_URLCONF = urls
    clear_url_caches()

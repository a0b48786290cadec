from django.apps import AppConfig


class WebioConfig(AppConfig):
    name = "webio"

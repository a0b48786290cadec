"""Staff's page on what the simulated carrier still has to report."""

from __future__ import annotations

from django.contrib import admin

from core.admin import LargeTableMixin
from gateways.sandbox.models import SandboxReport
from organisations.staff import HistoryAdmin


@admin.register(SandboxReport)
class SandboxReportAdmin(LargeTableMixin, HistoryAdmin):
    list_display = ("id", "organisation", "message", "status_code", "due_at")
    list_select_related = ("organisation", "message")

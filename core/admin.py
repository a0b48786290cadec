"""Admin pages for tables of any size, and the platform's own rows."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from core.models import Sequence, Slot

#: How far a list of a large table is counted and paged. Filters reach what is older.
COUNT_LIMIT = 10_000


class BoundedPaginator(Paginator):
    """Counts at most `COUNT_LIMIT` rows, so that no page costs a scan of a large table or a deep offset."""

    @cached_property
    def count(self) -> int:  # type: ignore[override]
        rows: QuerySet[Model] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[:COUNT_LIMIT].count()


class LargeChangeList(ChangeList):
    """Offers the drill-down by date only inside one organisation: the index that carries it starts with it."""

    needs_organisation = "organisation__id__exact"

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        if self.needs_organisation not in request.GET:
            self.date_hierarchy = None

    @property
    def bounded(self) -> bool:
        """Whether there are more rows than the list counts."""
        return self.result_count >= COUNT_LIMIT


class ReadOnlyMixin:
    """Nobody adds, changes or deletes here; it is looked at."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class LargeTableMixin(admin.ModelAdmin):
    """Lists of a table that grows for ever: newest first, nothing counted that is not shown.

    Search finds a row by its number, and by what `found_by` looks up through indexes.
    """

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    list_per_page = 50
    list_max_show_all = 50
    search_fields = ("=id",)
    ordering = ("-id",)
    sortable_by = ()
    change_list_template = "admin/large_change_list.html"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return LargeChangeList

    def found_by(self, term: str) -> QuerySet[Any] | None:
        """Rows that `term` finds besides by number, narrowed through indexes only; None for no such search."""
        return None

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term or "\x00" in term:
            return (queryset.none() if term else queryset), False
        keys: set[Any] = set()
        digits = term.removeprefix("#")
        if digits.isascii() and digits.isdigit() and len(digits) < 19:
            keys.add(int(digits))
        others = self.found_by(term)
        if others is not None:
            keys |= set(others.order_by("-pk").values_list("pk", flat=True)[:500])
        return queryset.filter(pk__in=keys), False


@admin.register(Slot)
class SlotAdmin(ReadOnlyMixin, admin.ModelAdmin):
    """Which loops run, and where."""

    list_display = ("name", "number", "alive", "lease_until", "queued_until")
    list_filter = ("name",)
    exclude = ("holder",)

    @admin.display(boolean=True)
    def alive(self, slot: Slot) -> bool:
        return slot.alive


@admin.register(Sequence)
class SequenceAdmin(ReadOnlyMixin, admin.ModelAdmin):
    """Counters without gaps."""

    list_display = ("name", "value")
    search_fields = ("name",)

"""Changes of tracked models are heard inside the transaction that makes them.

`save()` sends its signals outside any transaction in autocommit, and a snapshot taken when an instance was
loaded lies after a refresh, a rollback or another process's write. So a tracked save is atomic, reads the old
values from the database under a lock, and reports the difference once.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from django.db import models, transaction
from django.db.models.expressions import BaseExpression
from django.dispatch import Signal

#: Sent inside the transaction of a tracked save. Arguments: `instance`, `created` (bool), `before` and `after`
#: (dicts of the tracked fields' raw values by attname; `before` is empty for a new row). Only sent when a
#: tracked field was written with a new value, or the row is new.
changed = Signal()

M = TypeVar("M", bound="Tracked")


class TrackedWriteRefused(TypeError):
    """A bulk write would have changed tracked fields without anybody hearing of it."""


class TrackedQuerySet(models.QuerySet[M]):
    """Refuses the writes that send no signal and would therefore lose events."""

    def _refuse(self, verb: str, names: set[str]) -> None:
        untold = names & self.model.tracked_names()
        if untold:
            raise TrackedWriteRefused(
                f"{self.model.__name__}.{verb} would change {', '.join(sorted(untold))} unheard: "
                "save instances instead."
            )

    def update(self, **kwargs: Any) -> int:
        self._refuse("update", set(kwargs))
        return super().update(**kwargs)

    def bulk_update(self, objs: Any, fields: Any, batch_size: int | None = None) -> int:
        self._refuse("bulk_update", set(fields))
        return super().bulk_update(objs, fields, batch_size)

    def bulk_create(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse("bulk_create", self.model.tracked_names())


class Tracked(models.Model):
    """Base of models whose changes are recorded. `tracked` lists the attnames that matter."""

    tracked: ClassVar[tuple[str, ...]] = ()

    class Meta:
        abstract = True

    @classmethod
    def tracked_names(cls) -> set[str]:
        """Names and attnames of the tracked fields."""
        fields = [cls._meta.get_field(name) for name in cls.tracked]
        return {field.name for field in fields} | set(cls.tracked)

    def save_base(
        self,
        raw: bool = False,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Any = None,
    ) -> None:
        if raw:
            super().save_base(raw, force_insert, force_update, using, update_fields)
            return
        # Django saves in autocommit; what a save's own signals do must stand or fall with it. In a transaction of the
        # caller's no savepoint is taken, which cost two round trips: a save that fails ends that transaction.
        with transaction.atomic(using=using, savepoint=False):
            super().save_base(raw, force_insert, force_update, using, update_fields)

    def _save_table(
        self,
        raw: bool = False,
        cls: Any = None,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Any = None,
    ) -> bool:
        """Write the row and tell the change, before `post_save`: its receivers may change and save the row again."""
        if raw:
            return self._write(raw, cls, force_insert, force_update, using, update_fields)
        model = type(self)
        written = self.tracked
        if update_fields is not None:
            names = set(update_fields)
            written = tuple(name for name in self.tracked if name in names or model._meta.get_field(name).name in names)
        before: dict[str, Any] = {}
        if self.pk is not None and not force_insert and written:
            rows = model._base_manager.using(using).select_for_update(no_key=True)
            before = rows.filter(pk=self.pk).values(*self.tracked).first() or {}
        updated = self._write(raw, cls, force_insert, force_update, using, update_fields)
        if not written:
            return updated
        after = dict(before)
        expressions = []
        for name in written:
            value = self.__dict__.get(name)
            if isinstance(value, BaseExpression) or hasattr(value, "resolve_expression"):
                expressions.append(name)
            else:
                field = model._meta.get_field(name)
                assert isinstance(field, models.Field)
                after[name] = field.get_prep_value(value)
        if expressions:
            after.update(model._base_manager.using(using).values(*expressions).get(pk=self.pk))
        if not updated or after != before:
            changed.send(sender=model, instance=self, created=not updated, before=before, after=after)
        return updated

    def _write(self, *args: Any) -> bool:
        return bool(super()._save_table(*args))  # type: ignore[misc]

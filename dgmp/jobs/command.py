"""A command that is to run, and the draft of it.

A source of commands is an iterator of drafts (source.Source).  A draft knows all but the slot it will run in, for which `{%}`
stands: `draft.command(slot)` as it starts.  What only some options need (text, tag, key) is made when it is asked for.

Made by source, read by launcher, policy and output.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from .template import Record, Template

KEY_BYTES = 16


class Draft:
    """A command before it has a slot.

    Attributes:
        seq: its number, from 1.
        records: the inputs it is made of: one, or several with -n, -N, -X and -m.
        stdin: what it reads (--pipe); None: nothing.
    """

    __slots__ = ("job", "records", "seq", "stdin")

    def __init__(self, job: Job, seq: int, records: tuple[Record, ...], stdin: bytes | None = None) -> None:
        self.job, self.seq, self.records, self.stdin = job, seq, records, stdin

    @property
    def inputs(self) -> tuple[str, ...]:
        """The values of all its records."""
        return self.records[0] if len(self.records) == 1 else tuple(value for record in self.records for value in record)

    @property
    def text(self) -> str:
        """The command line, quoted for the shell; `{%}` is left as it is."""
        return self.job.template.line(self, None)

    @property
    def key(self) -> str:
        """A digest of the command's template, of its inputs and of the folder: the same job in another run.

        Of its number too, where the command uses that.
        """
        from _blake2 import blake2b  # hashlib would load OpenSSL: 3 ms

        digest = blake2b(digest_size=KEY_BYTES)
        for word in (self.job.template.text, self.job.folder, *self.inputs):
            data = word.encode(errors="surrogateescape")
            digest.update(b"%d:%s" % (len(data), data))
        if self.job.template.numbered:
            digest.update(b"#%d" % self.seq)
        if self.stdin is not None:
            digest.update(self.stdin)
        return digest.hexdigest()

    @property
    def early(self) -> bool:
        """Whether it can be made ready before it has a slot."""
        return self.stdin is None and not self.job.template.slotted

    def command(self, slot: int) -> Command:
        """What runs in this slot."""
        return Command(self, slot, self.job.template.argv(self, slot))


class Logged(Draft):
    """A command of which a joblog says that it failed."""

    __slots__ = ("logged",)

    def __init__(self, job: Job, seq: int, text: str, key: str) -> None:
        super().__init__(job, seq, ((text,),))
        self.logged = key

    @property
    def key(self) -> str:
        return self.logged


class Job:
    """What all drafts of a source have in common."""

    __slots__ = ("folder", "tag", "template")

    def __init__(self, template: Template, folder: str, tag: Template | None = None) -> None:
        self.template, self.folder, self.tag = template, folder, tag


class Command:
    """A command as it runs in a slot.

    Attributes:
        argv: the program and its arguments, which may be the shell and a line for it.
        seq, inputs, stdin, key: as its draft has them.
    """

    __slots__ = ("argv", "draft", "seq", "slot")

    def __init__(self, draft: Draft, slot: int, argv: list[str]) -> None:
        self.draft, self.slot, self.argv, self.seq = draft, slot, argv, draft.seq

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.draft.inputs

    @property
    def stdin(self) -> bytes | None:
        return self.draft.stdin

    @property
    def key(self) -> str:
        return self.draft.key

    @property
    def text(self) -> str:
        """The command line as it is shown, quoted for the shell."""
        return self.draft.job.template.line(self.draft, self.slot)

    @property
    def tag(self) -> str:
        """What stands before each of its lines (--tag, --tagstring)."""
        tag = self.draft.job.tag
        return "" if tag is None else tag.line(self.draft, self.slot)

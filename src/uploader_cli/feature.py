"""What a feature adds to the core, in one value; `features` lists those of this installation.

A feature is a folder in `features/` whose `__init__` has its value `FEATURE`. That is read at every start, and imports
nothing of ours but this module. What it names as `module:name` is in the folder, and is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol, TextIO, TypeAlias, TypeVar

from uploader_cli.features import FEATURES

T = TypeVar("T")
Place: TypeAlias = Literal["stored", "last"]
"""Where a step stands among the stations of a file: after the comparison of what is stored, or before its end."""


class FeatureOption(NamedTuple):
    """An option, with a line in the help as in `settings.model`; `before` is the option that it precedes there.

    `parse` names the parser of its value, in the folder as `module:name`, else in `settings.values`; a switch has none.
    """

    name: str
    default: Any
    text: str
    section: str
    commands: str
    before: str
    parse: str = ""
    type: Any = Any
    """That of its value, for the keywords of the library; a switch needs none."""
    config: Literal["any", "user", "none"] = "any"
    stored: bool = False
    secret: bool = False
    """Its value is never shown."""
    writes: str = ""
    """It names a file that a run writes: function of the path that raises `UsageError` for a wrong name."""
    resolve: str = ""
    """Function of a parsed value and the environment; it returns the value that a run has, also where it is resumed."""
    tus_only: bool = False
    """It is only for tus servers without sessions."""
    excludes: tuple[tuple[str, str], ...] = ()
    """Options that can't be given with it, each with the reason."""
    completes: str = ""
    """Function of the working directory and the user's config file; it returns the names for completion."""

    @property
    def annotation(self) -> Any:
        """The type of the field of `Settings`."""
        return bool if isinstance(self.default, bool) else self.type


class FeatureCommand(NamedTuple):
    """A command, which precedes `before` in the list of them; that is one of the core.

    The `function` is as those in `cli`. The `options` of the table that it takes have their names in one text.
    """

    name: str
    function: str
    before: str
    options: str = ""


class FeatureFormat(NamedTuple):
    """A format of `--report`, and the suffix that selects it; `label` is its name where the suffix does not tell it.

    The `function` takes the head and the `Spool` of a report, and yields text. With `digests` it lists the SHA-256 of
    the files, so that a run computes them.
    """

    name: str
    suffix: str
    function: str
    digests: bool = False
    label: str = ""


class FeatureAction(NamedTuple):
    """An action of the command that reads reports, and what it does, for the help.

    The `function` takes names of reports, those of reports to write, that of a list of failed files or None, and the
    options `json` and `quiet`; it returns an exit code.
    """

    name: str
    text: str
    function: str


class FeatureCode(NamedTuple):
    """A `FailureCode`, and what fixes it. `is_stored`: the server has the file.

    `is_usage`: another option is needed, and the run ends as a usage error does.
    """

    name: str
    fix: str
    is_stored: bool = False
    is_usage: bool = False


class JobPage(Protocol):
    """The page of the CI job that runs this command: it shows the first `most` failures, and a summary."""

    most: int

    def observer(self, stream: TextIO) -> Any:
        """Return the `Observer` that writes the failures of an upload."""

    def error(self, message: str, **properties: str) -> str:
        """Return the line that shows an error."""

    def outputs(self) -> list[Any]:
        """Return what writes the summary of an upload, each an `Output`."""

    def summarize(self, text: Iterable[str]) -> str:
        """Add to the summary; return why it failed: only a warning, as no option asks for it."""


class Feature(NamedTuple):
    """A feature, of which the first one of the `options` turns it on; without options it is always on.

    `consumes`: with it a local file is compared with what the server has, and may be gone after that. Such a run finds
    the files that it has stored missing, which is no error.
    """

    name: str
    uses: tuple[str, ...] = ()
    """Features that it imports, and is gone without."""
    options: tuple[FeatureOption, ...] = ()
    commands: tuple[FeatureCommand, ...] = ()
    consumes: bool = False
    checks_selection: str = ""
    """Function of the settings, the PATHs, the list or None, and the filter of its names; it raises `UsageError`."""
    unending: str = ""
    """A class as `run.unending.Unending`, in place of the walk through the PATHs. The run outlasts outages."""
    part: str = ""
    """Function of the settings; it returns the `selection.selection.Part` of what is found that the run sends."""
    steps: tuple[tuple[Place, str], ...] = ()
    """Each is a `Station`, made with the context of the run."""
    defaults: str = ""
    """Function of the value of the first option, its source, the user's config file and its tables with the name of the
    option; it returns the `Defaults` that the value names."""
    terms: str = ""
    """Function of the settings; it returns fields of the `Terms` of a tus server without sessions."""
    resolve: str = ""
    """Function of the settings, where one of its options is set; it returns those that the command has, without what
    has no effect there, or raises `UsageError`."""
    awaits: str = ""
    """Function of the settings; it returns what its step needs of the last answer for a stored file, of `url`, `id` and
    `header:NAME`. The journal has it until the step lets the file go on, also in a later run."""
    sources: str = ""
    """A module that reads what URLs name, as `sources.files.Reader` describes it."""
    plans: str = ""
    """Function of the settings and a file; it returns fields of events in a plan: what would become of the file."""

    directory: str = ""
    """The name of directories that no walk enters."""
    restores: str = ""
    """Function of the path around such a directory: it puts back what an interrupted run has left there, and returns
    the paths that stay, with a `FileFailure` for each."""
    codes: tuple[FeatureCode, ...] = ()
    warnings: tuple[str, ...] = ()
    """Names of `WarningCode`."""
    fields: str = ""
    """Fields that some events, the `Receipt` and the `Result` have after their own: by the name of their class, tuples
    of name, type and default."""
    events: str = ""
    """Classes of its public events, in a tuple (`public_among`)."""
    view: str = ""
    """The `render.feature_views.View` of its part of the state, `ProgressState.added`."""
    fields_of_missing: str = ""
    """Those of the event of a stored file that is missing here."""
    counts: str = ""
    """The field at the end of a file whose values are counted, and told with the `words`."""
    words: str = ""
    """A module with functions that return text. `ending` and `planned` end the line of an event; `total` is a line of
    the summary for the counts, and `planned_total` one of a plan for a value and its count."""
    head: str = ""
    """A module about fields of a report's head: see `report.document.Head`, and `heads` where reports are read."""
    formats: tuple[FeatureFormat, ...] = ()
    actions: tuple[FeatureAction, ...] = ()
    writer: str = ""
    """Function of the settings and the `RunFacts`; it returns a `ReportWriter` of a run."""
    observer: str = ""
    """Function of the settings, the `RunFacts` and a function that counts interrupts; it returns an `Observer` of a
    command that sends files, which is closed after its views."""
    instead: str = ""
    """Function of the settings and the PATHs of an upload, which is called instead of it, also without a server; it
    returns an exit code."""
    sender: str = ""
    """A class as `transfer.engine.Elsewhere`: it sends the files of an upload from other processes."""
    phase: str = ""
    """A class as `run.phase.Phase`: what follows all files of an upload, with exit codes."""
    needs_end: str = ""
    """Why it needs the end of the run: for a user who also asks for a run without one."""
    variables: tuple[str, ...] = ()
    """Variables of the environment that it reads."""
    page: str = ""
    """Function of the environment, where it has one of the `variables`; it returns a `JobPage`."""
    exports: tuple[tuple[str, str], ...] = ()
    """Classes of the library, by their names there."""
    modules: tuple[str, ...] = ()
    """Its modules that are public: a module of the package with that name imports what this one has for users, and is
    gone with the feature."""
    extra: str = ""
    """The extra that has the packages which it alone needs, and is gone with it."""
    trial: str = ""
    """The command that tries an upload without a server of the user's."""
    brings: tuple[tuple[str, str], ...] = ()
    """What it adds to another feature: the name of that one, and a module as that one describes it."""

    def load(self, name: str) -> Any:
        """Return what the feature has under a name `module` or `module:name`; the module is imported now."""
        module, _, provided = name.partition(":")
        found = import_module(f"uploader_cli.features.{self.name}.{module}")
        return getattr(found, provided) if provided else found

    def is_on(self, settings: object) -> bool:
        """Return whether these settings turn the feature on."""
        return not self.options or getattr(settings, self.options[0].name) != self.options[0].default


@cache
def features() -> tuple[Feature, ...]:
    """Return the features of this installation, in their order."""
    return tuple(import_module(f"uploader_cli.features.{name}").FEATURE for name in FEATURES)


def used(settings: object) -> list[Feature]:
    """Return the features that these settings turn on."""
    return [feature for feature in features() if feature.is_on(settings)]


def instead(settings: object) -> Feature | None:
    """Return the feature that these settings turn on and that does something else than to upload."""
    return next((feature for feature in used(settings) if feature.instead), None)


def part_options() -> list[str]:
    """Return the options by which a run sends a part of what is found."""
    return [feature.options[0].name for feature in features() if feature.part]


def options_of(settings: object, own: type[T]) -> T:
    """Return the options of a feature as its own value: a `NamedTuple` with their names."""
    return own(*(getattr(settings, name) for name in own.__annotations__))


def fields_of(kind: str) -> list[tuple[str, Any, Any]]:
    """Return the fields that features add to a class of this name: name, type and default."""
    return [field for feature in features() if feature.fields for field in feature.load(feature.fields).get(kind, ())]


def counted() -> list[Feature]:
    """Return the features that count values of a field."""
    return [feature for feature in features() if feature.counts]


def words_of(event: object) -> list[Any]:
    """Return the `words` about an event that has a counted field."""
    return [one.load(one.words) for one in counted() if getattr(event, one.counts, None) is not None]


def formats() -> dict[str, tuple[Feature, FeatureFormat]]:
    """Return the formats of reports that features add, by name."""
    return {one.name: (feature, one) for feature in features() for one in feature.formats}


def trial() -> str:
    """Return the command line that tries an upload without a server; empty where no feature has one."""
    return next((f"uploader {feature.trial}" for feature in features() if feature.trial), "")


def exported() -> dict[str, tuple[Feature, str]]:
    """Return the classes that features add to the library: by name, the feature and what it loads."""
    return {name: (feature, place) for feature in features() for name, place in feature.exports}


def brought(to: str) -> list[Any]:
    """Return the modules that features add to the feature of this name."""
    return [feature.load(module) for feature in features() for name, module in feature.brings if name == to]


def job_page(env: Mapping[str, str]) -> JobPage | None:
    """Return the page of the job with this environment; None outside a job."""
    for feature in features():
        if any(map(env.get, feature.variables)):
            page: JobPage = feature.load(feature.page)(env)
            return page
    return None

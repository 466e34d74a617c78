"""What a run is fed: conversations as rows in a plan of steps, rows as tensors, what they hold as memories.

:class:`Feed` is given a recipe, a processor and an encoder. The encoder runs before the first step, once for each
passage, or picture and view, that the store lacks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import nlargest
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import torch

from weft.data import Batch, Example, collate, count_examples, examples_of, plan_epoch, rows_of
from weft.encoders import VisionEncoder
from weft.errors import DataError
from weft.given_pictures import GivenPictures
from weft.hashes import content_hash
from weft.images import picture_hash
from weft.instructions import CAPTION
from weft.memory import Memory, Name, Placement
from weft.namers import CHANCES, LEAST_CHANCE, NamedPictures, Namer
from weft.names import Doubt
from weft.pictures import PictureFeatures, View, show
from weft.processing import WeftProcessor
from weft.progress import Reporter
from weft.recipe import Recipe, listed
from weft.rendering import Messages
from weft.store import FeatureStore
from weft.tally import Tally
from weft.text_encoders import TextEncoder
from weft.texts import TextFeatures
from weft.training_rows import Row, RowFile, SomeRows
from weft.whole_files import writing

PROBED = 4
"""Rows on which a run tries its way through the language model."""


def store_folder(recipe: Recipe) -> Path:
    """Where features are kept: runs of another precision have a folder of their own."""
    return Path(recipe.features) if recipe.precision == "bf16" else Path(recipe.features) / recipe.precision


def texts_folder(recipe: Recipe, adapters: str) -> Path:
    """Where features of passages are kept that the language model encodes, by a name for what its adapters hold."""
    return store_folder(recipe) / "texts" / adapters


class Feed:
    """The training set and the dev set of a run.

    Args:
        recipe: says which they are, and how rows become steps.
        processor: knows the chat template and the tokenizer.
        encoder: the frozen encoder, of pictures or of texts.
        device: where batches go.
        namer: names what is seen in pictures; None for nobody.
        with_names: spells names out in a memory.
        arrange: puts pictures and documents where the weave is to see them; None for where they are.
        data: conversations to learn, in place of the recipe's files: dicts in a list, a ``datasets.Dataset``.
        dev: conversations to watch, likewise.
        adapters: a name for what the adapters in the language model hold, where it encodes passages.
        positions: tokens that the language model takes; None for any number.
        text_learns: whether rows that hold nothing to read teach something, as they do an adapter.

    Attributes:
        rows: the training set.
        tally: what became of the conversations of the training set.
        dev_tally: the same of the dev set.
        dev_examples: conversations of the dev set.
        dev_rows: the same as rows.
        held: features of what rows hold, from the store.

    Raises:
        DataError: a data file can't be used as it is, or no row is left to learn from.
    """

    def __init__(
        self,
        recipe: Recipe,
        processor: WeftProcessor,
        encoder: VisionEncoder | TextEncoder,
        device: torch.device,
        namer: Namer | None = None,
        with_names: Callable[[Memory, Sequence[Sequence[Name]]], Memory] | None = None,
        arrange: Callable[[Messages], Messages] | None = None,
        *,
        data: Any = None,
        dev: Any = None,
        adapters: str = "",
        positions: int | None = None,
        text_learns: bool = False,
    ) -> None:
        self.recipe, self.device, self.processor = recipe, device, processor
        self.reads: Literal["documents", "pictures"] = "documents" if isinstance(encoder, TextEncoder) else "pictures"
        self.positions, self.text_learns = positions, text_learns
        self.tally, self.dev_tally = Tally(), Tally()
        self.with_names, self.doubt = with_names, Doubt(**recipe.doubt)
        self._arrange = arrange
        self.named: NamedPictures | None = None
        self.padding = processor.tokenizer.pad_token_id or 0
        self.pictures = GivenPictures(Path(recipe.features) / "pictures", fetch=recipe.fetch_pictures)
        files = listed(recipe.data) if data is None else [list(data) if recipe.limits and _is_read_once(data) else data]
        drawn = (one for number, file in enumerate(files) for one in self._drawn(number, file))
        self.rows = self._rows(self._telling(drawn), self.tally)
        if recipe.longest is not None:
            why = f"with more than {recipe.longest:,} tokens, the recipe's 'longest'"
            self.tally.leave_out(why, self.rows.drop_longer(recipe.longest))
        watched = (listed(recipe.dev) if recipe.dev else []) if dev is None else [dev]
        self.dev_examples = [
            one
            for file in watched
            for one in islice(examples_of(file, self.pictures, tally=self.dev_tally), recipe.evaluate_limit)
        ]
        self.dev_rows = self._rows(map(self._checked, self.dev_examples), self.dev_tally)
        self._check_left()
        self._check_metric()
        store = FeatureStore(store_folder(recipe))
        self.held: PictureFeatures | TextFeatures
        if isinstance(encoder, TextEncoder):
            dtype = next(encoder.model.parameters()).dtype
            kept = FeatureStore(texts_folder(recipe, adapters), dtype) if recipe.store_features else None
            self.held = TextFeatures(encoder, kept)
        else:
            self.held = PictureFeatures(encoder, store)
            if namer is not None:
                self.named = NamedPictures(namer, encoder, least=LEAST_CHANCE, most=CHANCES)

    def _drawn(self, number: int, file: Any) -> Iterable[Example]:
        """The conversations of a file that are used."""
        limit = dict(enumerate(self.recipe.limits)).get(number)
        if not limit or limit >= (count := count_examples(file)):
            return examples_of(file, self.pictures, tally=self.tally)
        chosen = random.Random(f"{self.recipe.seed} {number}").sample(range(count), limit)
        read = examples_of(file, self.pictures, set(chosen), tally=self.tally)
        found = dict(zip(sorted(chosen), read, strict=True))
        return [found[number] for number in chosen]

    def _telling(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Those that hold something to read, without which a weave learns nothing."""
        for example in map(self._checked, examples):
            if self.text_learns or getattr(example, self.reads):
                yield example
            else:
                self.tally.leave_out(f"without {self.reads}, from which the weave can learn nothing", [example.where])

    def _checked(self, example: Example) -> Example:
        """An example, unless it holds what the weave that learns would not look at."""
        other = "pictures" if self.reads == "documents" else "documents"
        if getattr(example, other):
            raise DataError(
                f"{example.where}: it holds {other}, but the weave {self.recipe.name!r}, which learns, reads "
                f"{self.reads}; leave them out."
            )
        return example

    def _check_left(self) -> None:
        """Refuse to learn from nothing."""
        if not self.rows:
            why = self.tally.reasons or "the data is empty"
            raise DataError(f"No row is left to learn from: {why}; change that, or give more data.")
        if not self.dev_rows and self.dev_tally.left_out:
            raise DataError(
                f"No row of the dev set is left: {self.dev_tally.reasons}; give others, or leave 'dev' out."
            )

    def _check_metric(self) -> None:
        """Refuse a metric that nothing in the dev set can be measured by, before the first step and not after many."""
        metric = self.recipe.metric
        captions = [one for one in self.dev_examples if one.question == CAPTION and one.pictures]
        if metric == "cider" and not captions:
            raise DataError(
                f"metric: cider compares captions; no conversation of 'dev' about a picture asks {CAPTION!r}."
            )
        if metric == "rouge" and (bare := [one for one in self.dev_examples if not one.documents]):
            raise DataError(f"metric: rouge compares what is said about documents; {bare[0].where} holds none.")

    def _rows(self, examples: Iterable[Example], tally: Tally) -> RowFile:
        recipe = self.recipe
        options: dict[str, Any] = {"share_prompts": recipe.share_prompts, "passages": recipe.passages}
        options |= {"positions": self.positions, "tally": tally}
        options |= {"careful": recipe.reading == "careful", "folder": Path(recipe.features), "arrange": self._arrange}
        with writing(Path(recipe.features)):
            return rows_of(examples, self.processor, **options)

    @property
    def about(self) -> list[str]:
        """What the data is, and what of it is not used, as sentences."""
        shown = {picture for row in self.rows for picture in row.pictures}
        read = sum(len(row.passages) for row in self.rows)
        what = f"{len(shown):,} pictures" if self.reads == "pictures" else f"{read:,} passages"
        said = [f"Data: {self.tally.rows:,} conversations about {what}, in {len(self.rows):,} rows."]
        return [*said, *self.tally.sentences, *(f"Dev set: {one}" for one in self.dev_tally.sentences)]

    def content(self) -> str:
        """A name for what the pictures of the training set hold."""
        shown = dict.fromkeys(picture for row in self.rows for picture in row.pictures)
        return content_hash(*(_hash(picture) for picture in shown))

    def drop_damaged(self, damaged: Mapping[str, str]) -> list[str]:
        """Leave out what shows a picture that can't be read.

        Args:
            damaged: of each such picture a sentence that says why.

        Returns:
            A sentence for each row that was left out.

        Raises:
            DataError: nothing is left.
        """
        said = []
        for rows, tally, name in (
            (self.rows, self.tally, "row"),
            (self.dev_rows, self.dev_tally, "row of the dev set"),
        ):
            places = rows.drop_showing(frozenset(damaged))
            tally.leave_out("whose picture can't be read", [where for where, _ in places])
            said += [f"{where}: {damaged[picture]} The {name} is left out." for where, picture in places]
        self.dev_examples = [one for one in self.dev_examples if not damaged.keys() & set(one.pictures)]
        self._check_left()
        return said

    @property
    def probed(self) -> list[Row]:
        """The longest rows, on which a run tries its way through the language model before the first step."""
        held = [
            (rows.length(number), rows, number) for rows in (self.rows, self.dev_rows) for number in range(len(rows))
        ]
        return [rows[number] for _, rows, number in nlargest(PROBED, held, key=lambda one: one[0])]

    def plan(self, epoch: int) -> list[list[SomeRows]]:
        """The steps of an epoch, each in parts of rows of like length; a step mixes parts of different lengths."""
        size, parts = max(1, self.recipe.batch_size // self.recipe.accumulate), self.recipe.accumulate
        work = [_work(self.rows.length(number), self.rows.read(number)) for number in range(len(self.rows))]
        batches = [SomeRows(self.rows, numbers) for numbers in plan_epoch(work, size, self.recipe.seed * 1000 + epoch)]
        return [batches[start : start + parts] for start in range(0, len(batches), parts)]

    def batch(self, rows: Sequence[Row]) -> Batch:
        """Rows as tensors."""
        return collate(rows, self.padding).to(self.device)

    def memory(self, rows: Sequence[Row], epoch: int | None) -> tuple[Memory, Placement]:
        """What rows hold, and where; a passage that several rows hold is one item.

        Args:
            rows: the rows of a batch.
            epoch: decides, with the row, which view of a picture is shown; None for the plain one.
        """
        if isinstance(self.held, TextFeatures):
            pieces = {one: index for index, one in enumerate(dict.fromkeys(p.piece for r in rows for p in r.passages))}
            placement = Placement.of([[(pieces[p.piece], p.column) for p in row.passages] for row in rows])
            memory = self.held.batch(list(pieces))
            if self.recipe.precision == "fp32":
                memory = memory.to(torch.float32)
        else:
            chosen = [(picture, self._view(row, epoch)) for row in rows for picture in row.pictures]
            memory = Memory(self.held.batch(chosen).float(), ())
            if self.named is not None and self.with_names is not None and chosen:
                memory = self.with_names(memory, self._names(rows, chosen, memory, epoch))
            items = iter(range(len(chosen)))
            placement = Placement.of([[(next(items), column) for column in row.columns] for row in rows])
        return memory.to(self.device), placement

    def _names(
        self, rows: Sequence[Row], chosen: Sequence[tuple[str, View]], memory: Memory, epoch: int | None
    ) -> list[tuple[Name, ...]]:
        """What the pictures of some rows are said to show; while learning, not all of it is true."""
        assert self.named is not None
        found = iter(self.named.of(chosen, (show(*one) for one in chosen), memory.features))
        names = []
        for row in rows:
            chance = random.Random(f"{self.recipe.seed} {epoch} {row.number}")
            doubt = Doubt() if epoch is None else self.doubt
            for exchanged in row.exchanged or ((),) * len(row.pictures):
                names.append(doubt(next(found), dict(exchanged), chance))
        return names

    def _view(self, row: Row, epoch: int | None) -> View:
        views = self.recipe.views
        return "plain" if epoch is None else views[(row.number + epoch) % len(views)]

    def encode(self, reporter: Reporter) -> None:
        """Encode what the store lacks, pictures in every view that the run shows."""
        if isinstance(self.held, TextFeatures):
            rows = chain(self.rows, self.dev_rows)
            self.held.fill((passage.piece for row in rows for passage in row.passages), reporter)
            return
        wanted = [(picture, view) for row in self.rows for picture in row.pictures for view in self.recipe.views]
        wanted += [(picture, "plain") for row in chain(self.probed, self.dev_rows) for picture in row.pictures]
        self.held.fill(wanted, reporter)


def _is_read_once(data: Any) -> bool:
    """Whether rows are gone when they have been counted."""
    return iter(data) is data if hasattr(data, "__iter__") else False


def _hash(picture: str) -> str:
    try:
        return picture_hash(picture)
    except OSError:
        return ""


def _work(length: int, read: int) -> int:
    """What rows are sorted by, to be computed together: the length of the text, which costs most, and among texts of
    about one length the size of what they read."""
    return length // 8 * 1_000_000 + min(read, 999_999) if read else length

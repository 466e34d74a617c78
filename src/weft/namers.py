"""Who names what pictures show: image classifiers, taggers and detectors, whose labels become memory to read.

A :class:`Namer` is given pictures, or the features that a vision encoder made of them, and hands on
:class:`~weft.memory.Name` objects: a plain word, how sure it is, and where in the picture it is seen.
:class:`OwnClassifier` is the classifier that an encoder was trained with, which costs next to nothing;
:class:`TransformersNamer` is any image classifier, tagger or object detector of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from weft.encoders import VisionEncoder
from weft.errors import PartError, WeftError
from weft.image_processors import load_image_processor, made_for
from weft.memory import Name, Picture
from weft.parts import ResolvedPart, resolve

OWN = "encoder"
"""Id of the namer that is the encoder's own classifier."""
LEAST = 0.06
"""Confidence below which a name is not worth reading."""
MOST = 4
"""Names a picture has at most: the surest."""
LEAST_CHANCE = 0.005
"""Confidence that a name has at least to be read by mistake."""
CHANCES = 12
"""Names of a picture that may be read by mistake, at most."""
SOME = 0.015
"""Probability below which a class adds nothing to the name that it shares with others: of many breeds of dog each gets
a little in every picture, which would add up to a dog."""


class Namer(Protocol):
    """Names what pictures show.

    Attributes:
        id: name by which it can be found again.
        sha256: hash of its weights' file.
        sees_pictures: whether it wants the pictures themselves; else the encoder's features are enough.
    """

    id: str
    sha256: str
    sees_pictures: bool

    def name(
        self,
        features: Float[Tensor, "M N D"],
        images: Sequence[Image.Image],
        sources: Sequence[Picture],
        *,
        least: float = LEAST,
        most: int = MOST,
    ) -> list[tuple[Name, ...]]:
        """Names of what each picture shows, the surest first.

        Args:
            features: what the encoder made of the pictures.
            images: the pictures; empty where the namer does not want them.
            sources: where their patches are; empty where the namer does not want the pictures.
            least: confidence that a name has at least.
            most: how many names a picture gets at most.
        """
        ...


class OwnClassifier:
    """The linear classifier over an encoder's mean feature.

    Its probabilities of classes that share a noun are added up. Where a noun is seen is its class activation map (Zhou
    et al., "Learning Deep Features for Discriminative Localization", 2016).

    Args:
        head: the classifier, ``[C, D]``; it is used, not owned.
        nouns: the plain noun of each class.
    """

    id, sha256, sees_pictures = OWN, "", False

    def __init__(self, head: nn.Linear, nouns: Sequence[str]) -> None:
        self.head = head
        self.nouns = tuple(dict.fromkeys(nouns))
        number = {noun: index for index, noun in enumerate(self.nouns)}
        self.owners: Int[Tensor, " C"] = torch.tensor([number[noun] for noun in nouns])

    @torch.no_grad()
    def name(
        self,
        features: Float[Tensor, "M N D"],
        images: Sequence[Image.Image] = (),
        sources: Sequence[Picture] = (),
        *,
        least: float = LEAST,
        most: int = MOST,
    ) -> list[tuple[Name, ...]]:
        """See :class:`Namer`."""
        features = features.to(self.head.weight.device, self.head.weight.dtype)
        classes = self.head(features.mean(1)).float().softmax(-1).cpu()
        counted = torch.where(classes >= min(SOME, least), classes, 0.0)
        chances = torch.zeros(len(classes), len(self.nouns)).index_add(1, self.owners, counted)
        found = []
        for picture, row, each in zip(features, chances, counted, strict=True):
            best = row.topk(min(most, len(row)))
            chosen = [(int(i), float(p)) for p, i in zip(best.values, best.indices, strict=True) if p >= least]
            found.append(tuple(Name(self.nouns[i], min(p, 1.0), self._place(picture, each, i)) for i, p in chosen))
        return found

    def _place(self, picture: Float[Tensor, "N D"], classes: Float[Tensor, " C"], noun: int) -> np.ndarray:
        """The class activation map of a noun: where the patches speak for it more than they do on the average."""
        own = torch.where(self.owners == noun, classes, 0.0)
        weights = (own / own.sum().clamp(min=1e-9)).to(picture.device, picture.dtype) @ self.head.weight
        return _shares((picture @ weights).float().cpu().numpy())


class TransformersNamer(nn.Module):
    """An image classifier, tagger or object detector of transformers.

    A detector's names are seen in their boxes, those of others anywhere in the picture. A classifier is a tagger if its
    configuration says ``problem_type="multi_label_classification"``. Of a label such as "tabby, tabby cat" the first
    of the words is taken.

    Args:
        model: the model.
        processor: its image processor.
        id: name by which it can be found again.
        sha256: hash of its weights' file.

    Raises:
        PartError: the model is none of these.
    """

    sees_pictures = True

    def __init__(self, model: Any, processor: Any, *, id: str = "", sha256: str = "") -> None:
        super().__init__()
        self.detects = "ObjectDetection" in type(model).__name__
        if not self.detects and "ImageClassification" not in type(model).__name__:
            raise PartError(
                f"{type(model).__name__} names nothing; give an image classifier, tagger or object detector as labels."
            )
        self.model, self.processor, self.id, self.sha256 = model, processor, id, sha256
        self.requires_grad_(False).eval()
        self.nouns = {int(index): _plain(text) for index, text in model.config.id2label.items()}

    def train(self, mode: bool = True) -> TransformersNamer:
        """Stays in evaluation mode: it is frozen."""
        return super().train(False)

    @torch.no_grad()
    def name(
        self,
        features: Float[Tensor, "M N D"],
        images: Sequence[Image.Image],
        sources: Sequence[Picture],
        *,
        least: float = LEAST,
        most: int = MOST,
    ) -> list[tuple[Name, ...]]:
        """See :class:`Namer`."""
        found = []
        for image, source in zip(images, sources, strict=True):
            seen = self._detected(image, source, least) if self.detects else self._classified(image, source, least)
            found.append(tuple(sorted(seen, key=lambda name: -name.confidence)[:most]))
        return found

    def _classified(self, image: Image.Image, source: Picture, least: float) -> list[Name]:
        logits = self.model(**self._inputs(image)).logits[0].float()
        tags = self.model.config.problem_type == "multi_label_classification"
        chances = logits.sigmoid() if tags else logits.softmax(-1)
        totals: dict[str, float] = {}
        for index, chance in enumerate(chances.tolist()):
            if tags:
                totals[self.nouns[index]] = max(totals.get(self.nouns[index], 0.0), chance)
            elif chance >= min(SOME, least):
                totals[self.nouns[index]] = min(1.0, totals.get(self.nouns[index], 0.0) + chance)
        anywhere = _shares(np.zeros(len(source.rectangles)))
        return [Name(noun, chance, anywhere) for noun, chance in totals.items() if chance >= least]

    def _detected(self, image: Image.Image, source: Picture, least: float) -> list[Name]:
        sizes = [(image.height, image.width)]
        outputs = self.model(**self._inputs(image))
        (boxes,) = self.processor.post_process_object_detection(outputs, threshold=least, target_sizes=sizes)
        names: dict[str, tuple[float, np.ndarray]] = {}
        for label, score, box in zip(boxes["labels"], boxes["scores"], boxes["boxes"], strict=True):
            noun = self.nouns[int(label)]
            covered = _covered(source.rectangles, box.float().cpu().numpy())
            sure, place = names.get(noun, (0.0, np.zeros(len(covered))))
            names[noun] = max(sure, float(score)), np.maximum(place, covered)
        return [Name(noun, sure, _shares(place)) for noun, (sure, place) in names.items()]

    def _inputs(self, image: Image.Image) -> Mapping[str, Tensor]:
        parameter = next(self.model.parameters())
        inputs = self.processor(images=image, return_tensors="pt")
        return {
            name: tensor.to(parameter.device, parameter.dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder from which :func:`load_namer` gets it back."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def load_namer(labels: str | Path | nn.Module | Namer, encoder: VisionEncoder) -> Namer:
    """What names pictures for a weave.

    Args:
        labels: ``"encoder"`` for the encoder's own classifier; or a loaded classifier, tagger or detector of
            transformers, a folder, or a Hub id.
        encoder: the weave's encoder.

    Raises:
        WeftError: the encoder has no classifier of its own.
        PartError: there is no such model.
    """
    if isinstance(labels, (OwnClassifier, TransformersNamer)):
        return labels
    if labels != OWN:
        return load_transformers_namer(cast(Any, labels))
    if encoder.classifier is None:
        raise WeftError(
            f"The encoder {encoder.id or type(encoder.model).__name__!r} has no classifier of its own; give labels a "
            "folder or Hub id of an image classifier or object detector."
        )
    return OwnClassifier(*encoder.classifier)


def load_transformers_namer(labels: str | Path | ResolvedPart | nn.Module) -> TransformersNamer:
    """A classifier, tagger or detector of transformers: loaded, a folder, a Hub id, or a part that has been found.

    Raises:
        PartError: there is no such model.
    """
    from transformers import AutoModelForImageClassification, AutoModelForObjectDetection

    if isinstance(labels, nn.Module):
        where = resolve(str(getattr(labels, "name_or_path", "")))
        processor = load_image_processor(where.path) or made_for(labels)
        return TransformersNamer(labels, processor, id=where.id, sha256=where.sha256)
    found = labels if isinstance(labels, ResolvedPart) else resolve(str(labels))
    config = found.path / "config.json"
    if not config.is_file():
        raise PartError(f"{labels} holds no model: config.json is missing; give a classifier or detector as labels.")
    architectures = json.loads(config.read_text(encoding="utf-8")).get("architectures") or [""]
    detects = "ObjectDetection" in architectures[0]
    auto = AutoModelForObjectDetection if detects else AutoModelForImageClassification
    try:
        model = auto.from_pretrained(found.path)
    except (OSError, ValueError) as error:
        raise PartError(f"{labels} can't be loaded as a classifier or detector ({error}).") from None
    processor = load_image_processor(found.path) or made_for(model)
    return TransformersNamer(model, processor, id=found.id, sha256=found.sha256)


class NamedPictures:
    """Names of picture files, worked out once, for training: of a namer that sees features from these alone.

    Args:
        namer: who names them.
        encoder: knows where in a picture its patches are.
        least: confidence that a name has at least.
        most: names a picture has at most.
    """

    def __init__(self, namer: Namer, encoder: VisionEncoder, *, least: float, most: int) -> None:
        self.namer, self.encoder, self.least, self.most = namer, encoder, least, most
        self._known: dict[Any, tuple[Name, ...]] = {}

    def of(
        self, pictures: Sequence[Any], images: Iterable[Image.Image], features: Float[Tensor, "M N D"]
    ) -> list[tuple[Name, ...]]:
        """Names of some pictures.

        Args:
            pictures: what tells each from the others.
            images: loads them, one after another, in that order; not touched where features are enough.
            features: what the encoder made of them.
        """
        if not self.namer.sees_pictures:
            return self.namer.name(features, (), (), least=self.least, most=self.most)
        for picture, image in zip(pictures, images, strict=True):
            if picture not in self._known:
                source = Picture(image.size, self.encoder.rectangles(image.size))
                (found,) = self.namer.name(features[:0], [image], [source], least=self.least, most=self.most)
                self._known[picture] = found
        return [self._known[picture] for picture in pictures]


def _plain(label: str) -> str:
    return label.split(",")[0].strip().replace("_", " ").lower()


def _shares(scores: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """By how much each patch is above the average, as shares of the whole; equal ones where none is."""
    above = np.clip(scores - scores.mean(), 0, None).astype(np.float32)
    total = above.sum()
    return above / total if total > 0 else np.full(len(above), 1 / len(above), np.float32)


def _covered(rectangles: Float[np.ndarray, "N 4"], box: Float[np.ndarray, " 4"]) -> Float[np.ndarray, " N"]:
    """The share of each patch that lies in a box."""
    starts, ends = np.maximum(rectangles[:, :2], box[:2]), np.minimum(rectangles[:, 2:], box[2:])
    sizes = rectangles[:, 2:] - rectangles[:, :2]
    return np.clip(ends - starts, 0, None).prod(1) / np.maximum(sizes.prod(1), 1e-9)

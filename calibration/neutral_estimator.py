"""Waits for the driver to be calm, takes the neutral, watches on and revises it; re-takeable."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.calm import CALIBRATION_S, CALM_SHARE, Sample, not_calm
from calibration.later import Later
from calibration.neutral import (
    DriverNeutral,
    NeutralReport,
    blend_neutral,
    choose_neutral,
    provisional,
)
from engines.head.model import HeadModel

F32 = NDArray[np.float32]

EASE_S = 0.5  # a re-taken neutral is eased in: the avatar never jumps
LENIENT_S = 3.0  # from here on a still face may be livelier: some people's rest is
PATIENCE_S = 8.0  # from here on the calmest that was seen has to do
LENIENT_SLACK = 2.0
_STEP_S = 0.25  # between two looks at the last second
_POOL = 24  # of the calmest frames: a second of them at 24 fps
_BETTER = 0.15  # so much calmer has a provisional neutral to be to take the place of another


class NeutralEstimator:
    """Waits for a calm second, not for ever; a provisional neutral, or the old one, serves meanwhile.

    Then it watches on: what is clearly calmer than the neutral in use, and another person, revise it.
    `fits`: see `choose_neutral`.
    """

    def __init__(self, model: HeadModel, *, fits: bool = True) -> None:
        self._model = model
        self._fits = fits
        self._second: deque[Sample] = deque()
        self._pool: list[Sample] = []  # the calmest frames since it waits
        self._later = Later(model, fits=fits)
        self._current: DriverNeutral | None = None
        self._from: DriverNeutral | None = None
        self._to: DriverNeutral | None = None
        self._ease_start_s = 0.0
        self._looked_s = 0.0
        self._waited_s = 0.0
        self._serves_lively: float | None = (
            None  # how lively the pool was that the provisional neutral is from
        )
        self._is_provisional = True
        self._is_new_person = False
        self._is_for_good = False
        self._report = NeutralReport()

    @property
    def report(self) -> NeutralReport:
        """How it stands after the last frame."""
        return self._report

    @property
    def collecting(self) -> bool:
        """Whether a calm second is still being waited for."""
        return self._report.state == "waiting"

    @property
    def current(self) -> DriverNeutral | None:
        """The neutral to use now, or None before the first face."""
        return self._current

    @property
    def target(self) -> DriverNeutral | None:
        """The neutral that `current` is being eased into: the one to keep."""
        return self._to or self._current

    def restart(self) -> None:
        """Take the neutral anew; the old one serves meanwhile."""
        self._second.clear()
        self._wait()
        self._is_for_good = False
        self._report = replace(self._report, state="waiting", why=())

    def adopt(self, neutral: DriverNeutral, *, for_good: bool = False) -> None:
        """Use `neutral` at once; it was taken before. `for_good`: whatever is seen later."""
        self._is_for_good = for_good
        self._second.clear()
        self._wait()
        self._current, self._to, self._is_provisional, self._is_new_person = neutral, None, False, False
        self._later.begin(sure=True)
        self._report = NeutralReport("taken", (), self._report.revision + 1)

    def add(self, sample: Sample) -> None:
        """One tracked frame."""
        time_s = sample.time_s
        since_s = time_s - self._second[-1].time_s if self._second else 0.0
        if (
            not 0 <= since_s <= CALIBRATION_S
        ):  # the driver's clock went back, a new clip; or the face was away
            self._second.clear()
            self._later.was_away()
            # whoever is lost again and again is not waited for for ever
            waited_s = self._waited_s if since_s > 0 else 0.0
            self._wait()
            self._waited_s, since_s = waited_s, 0.0
        self._second.append(sample)
        while len(self._second) > 2 and time_s - self._second[1].time_s >= CALIBRATION_S:
            self._second.popleft()
        if self._current is None:
            self._current = provisional(self._choose([sample]))
        self._waited_s += since_s
        if self.collecting:
            self._pool = sorted([*self._pool, sample], key=lambda s: s.lively)[:_POOL]
        self._later.saw(sample)
        is_whole = time_s - self._second[0].time_s >= CALIBRATION_S
        if is_whole and not 0 <= time_s - self._looked_s < _STEP_S:
            self._looked_s = time_s
            if self.collecting:
                self._look_for_calm(time_s)
            elif not self._is_for_good:
                self._look_later(time_s)
        self._ease(time_s)

    def _wait(self) -> None:
        self._pool, self._waited_s, self._serves_lively = [], 0.0, None

    def _choose(self, samples: Sequence[Sample], share: float = CALM_SHARE) -> DriverNeutral:
        return choose_neutral(self._model, samples, share, fits=self._fits)

    def _look_for_calm(self, time_s: float) -> None:
        second = list(self._second)
        why = not_calm(second)
        if not why:
            self._take(self._choose(second), time_s, sure=True)
        elif self._waited_s >= LENIENT_S and not not_calm(second, LENIENT_SLACK):
            self._take(self._choose(second), time_s, sure=False)
        elif self._waited_s >= PATIENCE_S:
            self._take(self._calmest_seen(), time_s, sure=False)
        else:
            new = ("new_person",) if self._is_new_person else ()
            self._report = replace(self._report, why=(*new, *why))
            self._improve(time_s)

    def _calmest_seen(self) -> DriverNeutral:
        """From the calmest frames since it waits, and turned to where the person mostly looked."""
        chosen = provisional(self._choose(self._pool, 1.0))
        usual = self._later.usual_pose()
        if usual is None:
            return chosen
        rotation, translation, gaze = usual
        motion = replace(chosen.motion, rotation_rad=rotation, translation_hu=translation, gaze_rad=gaze)
        return replace(chosen, motion=motion)

    def _improve(self, time_s: float) -> None:
        """A provisional neutral from a better pool, where the one in use is provisional too."""
        if not self._is_provisional or self._to is not None:
            return
        lively = float(np.mean([s.lively for s in self._pool]))
        if self._serves_lively is None or lively < self._serves_lively - _BETTER:
            self._serves_lively = lively
            self._ease_to(provisional(self._choose(self._pool, 1.0)), time_s)

    def _look_later(self, time_s: float) -> None:
        assert self._current is not None
        found = self._later.look(list(self._second), self.target or self._current, time_s, self._choose)
        if found is None:
            return
        if found.is_new_person:
            self._wait()
            self._is_new_person = self._is_provisional = True
            revision = self._report.revision + 1
            self._report = NeutralReport("waiting", ("new_person",), revision)
            self._ease_to(provisional(found.neutral), time_s)
            return
        self._take(found.neutral, time_s, sure=found.sure)

    def _take(self, neutral: DriverNeutral, time_s: float, *, sure: bool) -> None:
        self._ease_to(neutral, time_s)
        self._wait()
        self._is_provisional = self._is_new_person = False
        self._later.begin(sure=sure)
        self._report = NeutralReport("taken", (), self._report.revision + 1)

    def _ease_to(self, neutral: DriverNeutral, time_s: float) -> None:
        self._from, self._to, self._ease_start_s = self._current, neutral, time_s

    def _ease(self, time_s: float) -> None:
        if self._to is None or self._from is None:
            return
        # a clock that went back ends the easing rather than hold it for as long as it went
        passed_s = time_s - self._ease_start_s
        weight = 1.0 if passed_s < 0 else min(passed_s / EASE_S, 1.0)
        self._current = blend_neutral(self._from, self._to, weight)
        if weight >= 1:
            self._current, self._to = self._to, None

# SPDX-License-Identifier: MIT
"""Proves that benchmarks say of the numbers they are given what these tell: medians of rounds and where they are likely to
be, and of hotset's lines the shares, the times and the moves."""
import os
import random
import statistics
import threading
import unittest

import harness
import hotset


class Rounds(unittest.TestCase):
    def test_interval_is_of_order_statistics(self):
        self.assertEqual(harness.interval([5, 1, 4, 2, 3]), ())
        self.assertEqual(harness.interval([6, 5, 1, 4, 2, 3]), (1, 6))
        self.assertEqual(harness.interval(list(range(9))), (1, 7))

    def test_interval_has_the_median_as_often_as_it_says(self):
        draw = random.Random(1)
        runs = 4000
        for rounds in (6, 9, 15):
            within = 0
            for _ in range(runs):
                low, high = harness.interval([draw.expovariate(1) for _ in range(rounds)])
                within += low <= 0.6931 <= high
            self.assertGreater(within, 0.94 * runs)

    def test_paired_compares_round_by_round(self):
        # A slow phase of the machine meets both in the same rounds.
        said = harness.paired([10, 20, 40], [5, 10, 80])
        self.assertEqual((said["median_ratio"], said["value"], said["peer_value"], said["runs"]), (2, 20, 10, 3))
        self.assertEqual(said["interval"], ())

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "one CPU")
    def test_at_once_gives_each_a_cpu(self):
        meet = threading.Barrier(2, timeout=10)

        def look():
            meet.wait()
            return os.sched_getaffinity(0)

        one, other = harness.at_once(look, look)
        self.assertEqual((len(one), len(other)), (1, 1))
        self.assertNotEqual(one, other)
        with self.assertRaises(harness.Failure):
            harness.at_once(*[look] * 1000)

    def test_a_figure_survives_json(self):
        figure = harness.Figure(bench="malloc", case="gcc", subject="ferry", peer="jemalloc", unit="time", where="native",
                                clock="wall", machine="a", **harness.paired([3.0] * 6, [2.0] * 6))
        again = harness.Figure.from_json(figure.as_json())
        self.assertEqual((again.ratio, list(again.interval), again.case), (1.5, [1.5, 1.5], "gcc"))


HOT_PAGES = int(hotset.MIB * hotset.PAGES_MIB * 0.1)
# Seconds, phase, a number that is not looked at, accesses a second, hot share, share of accesses, pages moved: two
# phases of five seconds; in the first it takes 2 s until all is in HBM, in the second nothing ever is.
LINES = ([(i / 2, 0, 0, 100.0, 1.0 if i >= 4 else 0.1, 0.9, HOT_PAGES if i == 3 else 0) for i in range(1, 11)] +
         [(i / 2, 1, 0, 300.0, 0.0, 0.1, 0) for i in range(11, 21)])


class Hotset(unittest.TestCase):
    def test_shares_and_work(self):
        said = hotset.summary(LINES)
        self.assertAlmostEqual(said["hot-share"], 0.5)
        self.assertAlmostEqual(said["hbm-access-share"], 0.5)
        self.assertAlmostEqual(said["work"], statistics.mean([100, 300]))

    def test_times(self):
        said = hotset.summary(LINES)
        self.assertAlmostEqual(said["t90-s"], 2.0)
        self.assertAlmostEqual(said["shift-t90-s"], 0.5)

    def test_moves(self):
        said = hotset.summary(LINES)
        self.assertAlmostEqual(said["moved-per-hot"], 1, places=3)
        self.assertEqual(said["steady-moved"], 0)
        late = [line[:6] + (hotset.HBM_MIB * hotset.PAGES_MIB / 100 if line[0] == 5 else 0,) for line in LINES]
        # One hundredth of HBM in the last halves of both phases, four seconds in all.
        self.assertAlmostEqual(hotset.summary(late)["steady-moved"], 0.01 * 60 / 4)


if __name__ == "__main__":
    unittest.main()

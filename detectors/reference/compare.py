#!/usr/bin/env python3
"""Answers of the reference libraries on seeded inputs, for detectors/tests/golden.rs.

    compare.py golden.json          renews in the file what the libraries of this interpreter say, and leaves the rest
    compare.py --speed              nanoseconds per update of River, frouros and alibi-detect, on the streams of benches/streams.rs
    compare.py --speed tsv          the same, one "library<TAB>test<TAB>ns" a line, for benches/streams.rs

The libraries do not agree on their dependencies, so each group gets an environment of its own, outside the tree:

    python3 -m venv /tmp/ref-a && /tmp/ref-a/bin/pip install scipy river frouros typing_extensions
    python3 -m venv /tmp/ref-b && /tmp/ref-b/bin/pip install evidently "pandas<3"
    python3 -m venv /tmp/ref-c && /tmp/ref-c/bin/pip install nannyml statsmodels
    python3 -m venv /tmp/ref-d && /tmp/ref-d/bin/pip install alibi-detect            (only for --speed)
    for e in a b c; do /tmp/ref-$e/bin/python compare.py golden.json; done

Inputs are not stored: both sides make them from the same linear congruential generator (Knuth's MMIX constants).
"""
import importlib.metadata
import importlib.util
import json
import sys
import time
import warnings

import numpy as np

warnings.filterwarnings("ignore")


class Lcg:
    """state <- 6364136223846793005 state + 1442695040888963407 mod 2^64; the upper 53 bits are a number below 1."""

    def __init__(self, seed):
        self.state = seed

    def unit(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 11) / 2**53

    def bell(self):
        """Nearly normal: twelve uniform numbers less six, so that no library's logarithm has a say."""
        total = 0.0
        for _ in range(12):
            total += self.unit()
        return total - 6.0


def stream(spec):
    """{"seed", "kind": "bits" | "values", "parts": [[n, rate] | [n, mean, deviation], ...]}"""
    g, out = Lcg(spec["seed"]), []
    for part in spec["parts"]:
        for _ in range(part[0]):
            out.append((1.0 if g.unit() < part[1] else 0.0) if spec["kind"] == "bits" else part[1] + part[2] * g.bell())
    return out


def values(spec):
    """{"seed", "n", "mean", "deviation", "digits"}: digits -1 leaves the values alone, 0 and above rounds and makes ties."""
    g = Lcg(spec["seed"])
    scale = 10.0 ** spec["digits"]
    out = [spec["mean"] + spec["deviation"] * g.bell() for _ in range(spec["n"])]
    return out if spec["digits"] < 0 else [float(np.floor(v * scale + 0.5)) / scale for v in out]


def pair(seed, n, m, mean=0.0, deviation=1.0, digits=-1):
    return ({"seed": seed, "n": n, "mean": 0.0, "deviation": 1.0, "digits": digits},
            {"seed": seed + 1000, "n": m, "mean": mean, "deviation": deviation, "digits": digits})


PAIRS = [pair(1, 200, 150), pair(2, 200, 150, 0.5), pair(3, 30, 30, 0.8), pair(4, 12, 17, 1.0), pair(5, 1000, 700, 0.1),
         pair(6, 300, 200, 0.0, 2.0), pair(7, 400, 300, 0.4, 1.0, 0), pair(8, 250, 250, 0.3, 1.0, 1), pair(9, 20, 9, 0.2, 1.0, 1)]
COUNTS = [([500, 300, 200], [300, 300, 400]), ([90, 10], [80, 20]), ([1000, 20, 3, 1], [900, 40, 0, 2]), ([50, 50, 50], [51, 49, 50]),
          ([7, 0, 3, 12, 5], [4, 2, 0, 20, 9])]
BITS = [{"seed": 21, "kind": "bits", "parts": [[1000, 0.2], [1000, 0.5], [1000, 0.1]]},
        {"seed": 22, "kind": "bits", "parts": [[3000, 0.05], [1500, 0.10], [1500, 0.30]]},
        {"seed": 23, "kind": "bits", "parts": [[4000, 0.3]]},
        {"seed": 24, "kind": "bits", "parts": [[500, 0.0], [500, 0.02], [500, 0.9], [500, 0.02]]}]
VALUES = [{"seed": 31, "kind": "values", "parts": [[1500, 0.0, 1.0], [1500, 1.0, 1.0]]},
          {"seed": 32, "kind": "values", "parts": [[1000, 10.0, 2.0], [1000, 10.0, 6.0], [1000, 4.0, 2.0]]},
          {"seed": 33, "kind": "values", "parts": [[4000, 0.0, 1.0]]}]
SHORT = [{"seed": 41, "kind": "values", "parts": [[120, 0.0, 1.0], [120, 2.5, 1.0]]},
         {"seed": 42, "kind": "values", "parts": [[200, 0.5, 1.0]]}]


def population(library, test, a, b, statistic, p_value=None, **knobs):
    return {"library": library, "test": test, "knobs": knobs, "reference": a, "current": b, "statistic": float(statistic),
            "p_value": None if p_value is None else float(p_value)}


def scipy_population():
    from scipy import stats
    from scipy.spatial import distance
    out = []
    asymptotic = PAIRS + [pair(51, 20, 20, 0.1), pair(52, 60, 45, 0.6), pair(53, 300, 200), pair(54, 3000, 2000, 0.02),
                          pair(55, 3000, 2000, 0.1), pair(56, 9000, 12000, 0.01), pair(57, 9000, 12000, 0.03), pair(58, 400, 400, 0.9)]
    for a, b in asymptotic:
        r = stats.ks_2samp(values(a), values(b), method="asymp")
        out.append(population("scipy", "ks", a, b, r.statistic, r.pvalue, method=2))
    for a, b in PAIRS + [pair(58, 400, 400, 0.9), pair(59, 2000, 1700, 0.05)]:
        x, y = values(a), values(b)
        r = stats.ks_2samp(x, y, method="exact")
        out.append(population("scipy", "ks", a, b, r.statistic, r.pvalue, method=1))
        r = stats.ks_2samp(x, y)
        out.append(population("scipy", "ks", a, b, r.statistic, r.pvalue))
        r = stats.cramervonmises_2samp(x, y)
        out.append(population("scipy", "cramer_von_mises", a, b, r.statistic, r.pvalue))
        out.append(population("scipy", "wasserstein", a, b, stats.wasserstein_distance(x, y), normed=0))
    for a, b in COUNTS:
        for yates in (0, 1):
            r = stats.chi2_contingency(np.array([a, b]), correction=bool(yates))
            out.append(population("scipy", "chi_square", a, b, r.statistic, r.pvalue, yates=yates))
        out.append(population("scipy", "jensen_shannon", a, b, distance.jensenshannon(a, b)))
    return out


def frouros_population():
    from frouros.detectors.data_drift import CVMTest, ChiSquareTest, EMD, HellingerDistance, KSTest, MMD, PSI
    out = []

    def ask(detector, a, b):
        detector.fit(X=np.array(a))
        return detector.compare(X=np.array(b))[0]

    for a, b in PAIRS:
        x, y = values(a), values(b)
        r = ask(KSTest(), x, y)
        out.append(population("frouros", "ks", a, b, r.statistic, r.p_value))
        r = ask(CVMTest(), x, y)
        out.append(population("frouros", "cramer_von_mises", a, b, r.statistic, r.p_value))
        out.append(population("frouros", "wasserstein", a, b, ask(EMD(), x, y).distance, normed=0))
        out.append(population("frouros", "hellinger", a, b, ask(HellingerDistance(), x, y).distance, layout=1, bins=10))
        out.append(population("frouros", "mmd", a, b, ask(MMD(), x, y).distance, sigma=1))
        index = ask(PSI(num_bins=3), x, y).distance
        if index < 5.0:  # An empty bin costs hundreds in frouros: another definition.
            out.append(population("frouros", "psi", a, b, index, layout=1, bins=3))
    for a, b in COUNTS:
        r = ask(ChiSquareTest(), np.repeat(np.arange(len(a)), a), np.repeat(np.arange(len(b)), b))
        out.append(population("frouros", "chi_square", a, b, r.statistic, r.p_value))
    return out


def evidently_population():
    import pandas as pd
    from evidently.legacy.calculations.stattests import chisquare_stattest, cramer_von_mises_stattest, hellinger_distance, jensenshannon
    from evidently.legacy.calculations.stattests import ks_stattest, mmd_stattest, psi, tvd_stattest, wasserstein_distance_norm
    from evidently.legacy.core import ColumnType
    out = []
    for a, b in PAIRS:
        x, y = values(a), values(b)
        ask = lambda f: f(pd.Series(x), pd.Series(y), ColumnType.Numerical, 0.1)[0]
        out.append(population("evidently", "psi", a, b, ask(psi._psi)))
        out.append(population("evidently", "jensen_shannon", a, b, ask(jensenshannon._jensenshannon)))
        out.append(population("evidently", "hellinger", a, b, ask(hellinger_distance._hellinger_distance)))
        out.append(population("evidently", "wasserstein", a, b, ask(wasserstein_distance_norm._wasserstein_distance_norm)))
        u, v = np.array(x).reshape(-1, 1), np.array(y).reshape(-1, 1)
        k = mmd_stattest.kernel_matrix(u, v)
        out.append(population("evidently", "mmd", a, b, mmd_stattest.mmd_2samp(k - np.diag(np.diagonal(k)), len(y))))
        # Evidently answers with the p-value alone; the statistic is SciPy's and already compared.
        out.append(population("evidently", "ks", a, b, float("nan"), ask(ks_stattest._ks_stat_test)))
        if max(len(x), len(y)) > 20:  # Its exact count is kept in single precision: equal to 1e-8 only.
            out.append(population("evidently", "cramer_von_mises", a, b, float("nan"), ask(cramer_von_mises_stattest._cramer_von_mises)))
    for a, b in COUNTS:
        x, y = np.repeat(np.arange(len(a)), a).astype(str), np.repeat(np.arange(len(b)), b).astype(str)
        ask = lambda f: f(pd.Series(x), pd.Series(y), ColumnType.Categorical, 0.1)[0]
        out.append(population("evidently", "psi", a, b, ask(psi._psi)))
        out.append(population("evidently", "jensen_shannon", a, b, ask(jensenshannon._jensenshannon)))
        out.append(population("evidently", "hellinger", a, b, ask(hellinger_distance._hellinger_distance)))
        tvd = tvd_stattest._total_variation_distance(pd.Series(x), pd.Series(y))
        out.append(population("evidently", "total_variation", a, b, tvd))
    return out


def nannyml_population():
    import pandas as pd
    from nannyml.drift.univariate import methods
    from nannyml.thresholds import ConstantThreshold
    out = []

    def ask(cls, x, y):
        m = cls(chunker=None, threshold=ConstantThreshold(0, 1), computation_params={}) if "computation_params" in \
            cls.__init__.__code__.co_varnames else cls(chunker=None, threshold=ConstantThreshold(0, 1))
        m._fit(pd.Series(x))
        return m._calculate(pd.Series(y))

    for a, b in PAIRS:
        x, y = values(a), values(b)
        out.append(population("nannyml", "ks", a, b, ask(methods.KolmogorovSmirnovStatistic, x, y)))
        out.append(population("nannyml", "wasserstein", a, b, ask(methods.WassersteinDistance, x, y), normed=0))
    for a, b in COUNTS:
        x = pd.Series(np.repeat(np.arange(len(a)), a).astype(str), dtype="object")
        y = pd.Series(np.repeat(np.arange(len(b)), b).astype(str), dtype="object")
        if all(a) or all(b):
            out.append(population("nannyml", "chi_square", a, b, ask(methods.Chi2Statistic, x, y)))
    return out


def run(library, test, spec, detector, feed, drifted, score=None, warned=None, **knobs):
    drifts, warnings_, scores = [], 0, []
    for i, x in enumerate(stream(spec)):
        feed(detector, x)
        if score and i % 97 == 96:
            scores.append([i, float(score(detector))])
        if drifted(detector):
            drifts.append(i)
        elif warned and warned(detector):
            warnings_ += 1
        if drifted(detector) and hasattr(detector, "reset"):
            detector.reset()
    return {"library": library, "test": test, "knobs": knobs, "stream": spec, "drifts": drifts,
            "warnings": warnings_ if warned else None, "scores": scores}


def river_streams():
    from river import drift
    from river.drift import binary
    out = []

    def ask(test, spec, detector, score=None, flip=False, **knobs):
        feed = lambda d, x: d.update((1 - int(x) if flip else int(x)) if spec["kind"] == "bits" else x)
        warned = (lambda d: d.warning_detected) if hasattr(detector, "warning_detected") and test != "fhddm" else None
        out.append(run("river", test, spec, detector, feed, lambda d: d.drift_detected, score, warned, **knobs))

    def distance(d):
        return max(d._sum_increase - d._min_increase, d._max_decrease - d._sum_decrease)

    for spec in BITS + VALUES:
        ask("adwin", spec, drift.ADWIN(), lambda d: d.estimation)
        ask("adwin", spec, drift.ADWIN(delta=0.2, clock=1, max_buckets=3), lambda d: d.estimation, delta=0.2, clock=1, max_buckets=3)
        ask("page_hinkley", spec, drift.PageHinkley(), distance)
        ask("page_hinkley", spec, drift.PageHinkley(threshold=20, delta=0.05), distance, threshold=20, delta=0.05)
        ask("kswin", spec, drift.KSWIN(seed=1))
        ask("kswin", spec, drift.KSWIN(alpha=0.0001, seed=42, window_size=400, stat_size=50), alpha=0.0001, seed=42, window=400, newest=50)
    for spec in BITS:
        ask("ddm", spec, binary.DDM(), lambda d: d._p.get() + np.sqrt(max(d._p.get() * (1 - d._p.get()), 0) / d._p.n) if d._p.n > 30 else 0.0)
        ask("eddm", spec, binary.EDDM())
        ask("eddm", spec, binary.EDDM(warm_start=10, alpha=0.8, beta=0.6), warm_start=10, alpha=0.8, beta=0.6)
        ask("hddm_a", spec, binary.HDDM_A(), lambda d: d._z.get() - d._x_min.get())
        ask("hddm_a", spec, binary.HDDM_A(two_sided_test=True), two_sided=1)
        ask("hddm_w", spec, binary.HDDM_W(), lambda d: d._s2_incr.ewma - d._s1_incr.ewma if d._s2_incr.is_init else 0.0)
        ask("hddm_w", spec, binary.HDDM_W(two_sided_test=True, lambda_val=0.02), two_sided=1, **{"lambda": 0.02})
        ask("fhddm", spec, binary.FHDDM(), flip=True)
        ask("fhddm", spec, binary.FHDDM(sliding_window_size=200, short_window_size=40, confidence_level=0.001), flip=True, window=200,
            short_window=40, delta=0.001)
    return out


def frouros_streams():
    from frouros.detectors import concept_drift as cd
    out = []

    def ask(test, spec, detector, score=None, warned=False, **knobs):
        feed = lambda d, x: d.update(value=x)
        w = (lambda d: d.warning) if warned else None
        out.append(run("frouros", test, spec, detector, feed, lambda d: d.drift, score, w, **knobs))

    for spec in BITS + VALUES:
        ask("cusum", spec, cd.CUSUM(), lambda d: d.sum_)
        ask("cusum", spec, cd.CUSUM(cd.CUSUMConfig(lambda_=10, delta=0.1)), lambda d: d.sum_, threshold=10, delta=0.1)
        ask("gma", spec, cd.GeometricMovingAverage(), lambda d: d.sum_)
        ask("gma", spec, cd.GeometricMovingAverage(cd.GeometricMovingAverageConfig(alpha=0.98, lambda_=0.1)), lambda d: d.sum_,
            alpha=0.98, threshold=0.1)
    for spec in BITS:
        for length in (100, 400, 1000):
            config = cd.ECDDWTConfig(average_run_length=length)
            ask("ecdd", spec, cd.ECDDWT(config), lambda d: d.z.mean if d.num_instances >= 30 else 0.0, True, run_length=length)
    for spec in SHORT:
        # frouros says "drift" at every value once the most probable run is younger than the series; what is compared is the run.
        d = cd.BOCD(cd.BOCDConfig(hazard=0.01))
        runs = []
        for i, x in enumerate(stream(spec)):
            d.update(value=x)
            row = d.log_r[i + 1, : i + 2]
            runs.append([i, i + 1 - int(row.argmax()), float(np.exp(row.max()))])
        out.append({"library": "frouros", "test": "bocpd_normal", "knobs": {"settle": 0}, "stream": spec, "runs": runs[::7]})
    return out


NOTES = [
    "river page_hinkley and frouros PageHinkley are two tests: frouros keeps no minimum and compares the sum itself; ours is River's.",
    "river HDDM_A puts ln(2/confidence) into the one-sided test, frouros ln(1/confidence) and waits for 30 values; ours is River's.",
    "river HDDM_W's average starts anew whenever it is exactly 0, frouros' starts at 0 and its cut uses lambda for the confidence; "
    "ours is River's, knob restart_at_zero 0 is the paper's.",
    "river FHDDM counts ones as right answers: it is fed 1 - error here.",
    "river and frouros KSWIN draw from different generators (Python's random, NumPy's): only River's can be repeated by seed.",
    "frouros DDM, EDDM and ADWIN differ from River's in their first comparison, in dividing by n and in resetting; ours are River's.",
    "evidently's chi-square takes the reference as exactly known (one-sample); ours is SciPy's contingency test, as NannyML's.",
    "evidently's exact Cramer-von Mises p-value is counted in single precision: compared with SciPy's, of which it is a copy.",
    "evidently's total variation and MMD answer with a p-value from random permutations: the statistic is compared.",
    "frouros PSI fills empty bins with the smallest positive number, frouros JS interpolates between two histograms of different "
    "bins, NannyML bins by Doane's rule: other definitions, not compared where they differ.",
    "no library here has a z-score, MAD, EWMA chart, Holt-Winters residual or burn-rate alarm on streams: MAD and burn rate have "
    "unit tests of their own; the others only the worked stream on their page.",
]

PARTS = [("scipy", "population", scipy_population), ("frouros", "population", frouros_population),
         ("evidently", "population", evidently_population), ("nannyml", "population", nannyml_population),
         ("river", "streams", river_streams), ("frouros", "streams", frouros_streams)]


def golden(path):
    try:
        with open(path) as f:
            doc = json.load(f)
    except FileNotFoundError:
        doc = {"notes": [], "libraries": {}, "population": [], "streams": []}
    doc["notes"] = NOTES
    for library, section, ask in PARTS:
        try:
            version = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
        if library == "scipy" and importlib.util.find_spec("river") is None:
            continue  # SciPy comes along with everything; its version of record is the one beside River.
        answers = ask()
        for a in answers:  # NaN is no JSON: a statistic that the library does not give.
            if a.get("statistic") is not None and a["statistic"] != a["statistic"]:
                a["statistic"] = None
        doc["libraries"][library] = version
        doc[section] = [a for a in doc[section] if a["library"] != library] + answers
        print(library, version, section, len(answers))
    with open(path, "w") as f:
        f.write("{\n" + ',\n'.join(
            json.dumps(k) + ": " + ("[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in v) + "\n]" if isinstance(v, list)
                                    else json.dumps(v)) for k, v in doc.items()) + "\n}\n")


def feed(library, detector, xs):
    if library == "river":
        for x in xs:
            detector.update(x)
    elif library == "frouros":
        for x in xs:
            detector.update(value=x)
            if detector.drift:
                detector.reset()
    else:
        for x in xs:
            if detector.predict(np.array([x]))["data"]["is_drift"]:
                detector.reset()


def speed(tsv):
    """Libraries that this interpreter has. Those of alibi-detect compare a window of 40 with 1,000 values known to be quiet."""
    bits = stream({"seed": 71, "kind": "bits", "parts": [[20000, 0.1]]})
    reals = stream({"seed": 72, "kind": "values", "parts": [[20000, 0.0, 1.0]]})
    has = importlib.util.find_spec
    parts = []
    if has("river"):
        from river import drift
        from river.drift import binary
        parts.append(("river", {
            "adwin": (drift.ADWIN(), reals), "page_hinkley": (drift.PageHinkley(), reals), "kswin": (drift.KSWIN(seed=1), reals[:2000]),
            "ddm": (binary.DDM(), bits), "eddm": (binary.EDDM(), bits), "hddm_a": (binary.HDDM_A(), bits),
            "hddm_w": (binary.HDDM_W(), bits), "fhddm": (binary.FHDDM(), bits)}))
    if has("frouros"):
        from frouros.detectors import concept_drift as cd
        parts.append(("frouros", {
            "cusum": (cd.CUSUM(), reals), "gma": (cd.GeometricMovingAverage(), reals), "ecdd": (cd.ECDDWT(), bits),
            "page_hinkley": (cd.PageHinkley(), reals), "ddm": (cd.DDM(), bits), "eddm": (cd.EDDM(), bits), "hddm_a": (cd.HDDMA(), bits),
            "hddm_w": (cd.HDDMW(), bits), "adwin": (cd.ADWIN(), bits[:5000]), "kswin": (cd.KSWIN(), reals[:2000]),
            "bocpd_normal": (cd.BOCD(), reals[:600])}))
    if has("alibi_detect"):
        from alibi_detect.cd import CVMDriftOnline, FETDriftOnline
        how = {"ert": 150, "window_sizes": [40], "n_bootstraps": 10000, "verbose": False}
        quiet = np.array([int(x) for x in bits[-1000:]])
        parts.append(("alibi", {
            "fhddm": (FETDriftOnline(quiet, **how), bits[:5000]), "kswin": (CVMDriftOnline(np.array(reals[-1000:]), **how), reals[:5000])}))
    for library, tests in parts:
        for name, (detector, xs) in tests.items():
            xs = [int(x) for x in xs] if xs[0] in (0.0, 1.0) else xs
            start = time.perf_counter()
            feed(library, detector, xs)
            ns = (time.perf_counter() - start) / len(xs) * 1e9
            print("%s\t%s\t%.0f" % (library, name, ns) if tsv else "%-8s %-14s %10.0f ns per update" % (library, name, ns))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--speed":
        speed(len(sys.argv) > 2)
    elif len(sys.argv) == 2:
        golden(sys.argv[1])
    else:
        sys.exit(__doc__)

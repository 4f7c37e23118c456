"""What other code computes under the same names, written anew from descriptions of it."""

import itertools
import math

import numpy as np
from scipy.stats import norm as normal

from .reference import distance, least, mean, median
from .reference_reputation import clipped, cosine, dnc, dot, middle, norm, sign_features
from .reference_subspace import upgrad_weights

# Krum and Multi-Krum


def scores(rows, count, power):
    """The sum of the ``count`` least distances to other rows, to this power."""
    return [
        math.fsum(sorted(distance(a, b) ** power for j, b in enumerate(rows) if j != i)[:count]) for i, a in enumerate(rows)
    ]


def krum_picks(rows, count, power, keep):
    """The rows with the ``keep`` least scores, best first."""
    return least(scores(rows, count, power), keep)


def krum_weighted(rows, count, keep, claims):
    """Multi-Krum whose picks count by the examples that they claim."""
    picks = krum_picks(rows, count, 2, keep)
    total = sum(claims[i] for i in picks)
    return mean([rows[i] for i in picks], [claims[i] / total for i in picks])


def krum_summed(rows, count, keep):
    """Multi-Krum with fourth powers whose picks are added up."""
    return mean([rows[i] for i in krum_picks(rows, count, 4, keep)], [1.0] * keep)


def krum_of_gram(rows, count):
    """Krum with distances ||x||^2 + ||y||^2 - 2 x.y in float32; the least score of all is not skipped as the row's own."""
    x = np.array(rows, dtype=np.float32)
    lengths = np.square(x).sum(axis=1)
    distances = lengths[:, None] + lengths[None, :] - 2 * x @ x.T
    sums = np.sort(distances, axis=1)[:, 1 : count + 1].sum(axis=1)
    return rows[int(np.argmin(sums))]


def krum_argmin(rows, count):
    """Krum by NumPy's argmin, to which NaN is less than any number."""
    x = np.array(rows, dtype=np.float64)
    distances = np.sort(((x[:, None] - x[None]) ** 2).sum(axis=2), axis=1)
    return rows[int(np.argmin(distances[:, 1 : count + 1].sum(axis=1)))]


# Bulyan: each returns picks, or None where entries are means of several rows, and the result


def nearest_to(rows, centre, keep):
    """The ``keep`` values of each coordinate that are nearest to ``centre``."""
    columns = zip(zip(*rows, strict=True), centre, strict=True)
    return [sorted(sorted(column), key=lambda x: abs(x - c))[:keep] for column, c in columns]


def bulyan_one_shot(rows, f):
    """All n - 2f picks from one set of scores."""
    n = len(rows)
    picks = krum_picks(rows, n - f - 2, 2, n - 2 * f)
    chosen = [rows[i] for i in picks]
    return picks, [math.fsum(kept) / (n - 4 * f) for kept in nearest_to(chosen, median(chosen), n - 4 * f)]


def bulyan_deviations(rows, f):
    """One shot, and then the mean of how far the kept values are from the median, instead of the values."""
    n = len(rows)
    picks = krum_picks(rows, n - f - 2, 2, n - 2 * f)
    chosen = [rows[i] for i in picks]
    centre = median(chosen)
    kept = nearest_to(chosen, centre, n - 4 * f)
    return picks, [math.fsum(abs(x - c) for x in xs) / (n - 4 * f) for xs, c in zip(kept, centre, strict=True)]


def bulyan_of_means(rows, f):
    """n - 2f - 2 entries, the i-th the mean of n - f - 2 - i rows from the i-th place on; nearest to the lower median."""
    n = len(rows)
    order = krum_picks(rows, n - f - 2, 1, n)
    entries = [mean([rows[j] for j in order[i : n - f - 2]]) for i in range(n - 2 * f - 2)]
    kept = nearest_to(entries, median(entries, even="lower"), n - 4 * f - 2)
    return None, [math.fsum(values) / len(values) for values in kept]


def bulyan_trimmed(rows, f, m):
    """n - 2f - 2 entries, each the mean of the best rows left, at most m; the row nearest to it goes. Trimmed mean."""
    n = len(rows)
    left, entries = list(range(n)), []
    for i in range(n - 2 * f - 2):
        among = [rows[j] for j in left]
        best = krum_picks(among, max(1, len(left) - f - 2), 2, min(m, n - f - 2 - i))
        entries.append(mean([among[j] for j in best]))
        left.pop(min(best, key=lambda j: distance(among[j], entries[-1])))
    kept = [sorted(column)[f : len(entries) - f] for column in zip(*entries, strict=True)]
    return None, [math.fsum(values) / len(values) for values in kept]


def bulyan_unmapped(rows, f):
    """A pick's number among the rows left is taken for its number among all; the plain mean of the picks."""
    picks = []
    for _ in range(len(rows) - 2 * f):
        left = [row for i, row in enumerate(rows) if i not in picks]
        picks += krum_picks(left, max(1, len(left) - f - 1), 1, 1)
    return picks, mean([rows[i] for i in picks])


# Other rules


def trimmed_share(rows, beta):
    """Trimmed mean that cuts int(beta n) values per side."""
    cut = int(beta * len(rows))
    return [math.fsum(kept) / len(kept) for kept in (sorted(c)[cut : len(rows) - cut] for c in zip(*rows, strict=True))]


def trimmed_lowered(rows, f):
    """Trimmed mean that lowers f until something is left."""
    return trimmed_share(rows, min(f, (len(rows) - 1) // 2) / len(rows) + 1e-9)


def caf_by_power_step(rows, f, start):
    """CAF by one power step from ``start``, whose result is None until a pass finds an eigenvalue below infinity."""
    x, c = np.array(rows, dtype=np.float64), np.ones(len(rows))
    least_so_far, result = math.inf, None
    with np.errstate(invalid="ignore"):
        while c.sum() > len(rows) - 2 * f:
            mu = c @ x / c.sum()
            step = (c * ((x - mu) @ start)) @ (x - mu) / c.sum()
            eigenvalue = np.linalg.norm(step)
            direction = step / eigenvalue
            if eigenvalue * (direction @ direction) < least_so_far:
                least_so_far, result = eigenvalue, mu.tolist()
            outlying = ((x - mu) @ direction) ** 2
            c = c * (1 - outlying / outlying.max())
    return result


def power_step(rows, kept, start):
    """What one power step from ``start`` takes for the top eigenvalue of the scatter of the rows ``kept``."""
    x = np.array(rows, dtype=np.float64)[list(kept)]
    x = x - x.mean(axis=0)
    step = x.T @ (x @ start)
    return float(np.linalg.norm(step))


def smea_by_power_step(rows, f, start):
    """SMEA by such eigenvalues."""
    start = np.array(start) / np.linalg.norm(start)
    subsets = itertools.combinations(range(len(rows)), len(rows) - f)
    return mean([rows[i] for i in min(subsets, key=lambda kept: power_step(rows, kept, start))])


def clip_by_squares(rows, c):
    """Clipping by a norm whose square may overflow."""
    x = np.array(rows)
    with np.errstate(over="ignore"):
        norms = np.sqrt((x * x).sum(axis=1))
    return (x * np.minimum(1.0, c / norms)[:, None]).tolist()


def centered_clip_kept(calls, tau):
    """Centered clipping that keeps whatever its rows make of the centre; the centre after these calls."""
    v = np.zeros(len(calls[0][0]))
    for rows in calls:
        away = np.array(rows) - v
        factors = np.minimum(1.0, tau / np.maximum(1e-300, np.linalg.norm(away, axis=1)))
        v = v + (away * factors[:, None]).mean(axis=0)
    return v.tolist()


def monna_fewer(rows, f, reference):
    """The mean of the n - 2f rows nearest to the reference."""
    far = [distance(row, rows[reference]) for row in rows]
    return mean([rows[i] for i in least(far, len(rows) - 2 * f)])


def fl_trust(rows, root, nobody):
    """FLTrust, and what it does where nobody is trusted: "mean", the plain mean, or "divide", all the same."""
    trust = [max(0.0, cosine(row, root)) for row in rows]
    if not any(trust) and nobody == "mean":
        return mean(rows)
    scaled = [[t * norm(root) / norm(row) * x for x in row] for t, row in zip(trust, rows, strict=True)]
    with np.errstate(invalid="ignore"):
        return (np.sum(scaled, axis=0) / np.sum(trust)).tolist()


def fools_gold_divided(rows):
    """FoolsGold without memory that divides the alphas by their largest, even by 0."""
    similar = np.array([[0.0 if i == j else cosine(a, b) for j, b in enumerate(rows)] for i, a in enumerate(rows)])
    most = similar.max(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        similar *= np.minimum(1.0, most[:, None] / most[None, :])
        alpha = 1 - similar.max(axis=1)
        alpha = np.minimum(alpha / alpha.max(), 0.99)
        return (np.clip(np.log(alpha / (1 - alpha)) + 0.5, 0, 1) @ np.array(rows)).tolist()


def upgrad_thresholded(rows, norm_eps=1e-4):
    """UPGrad whose products are replaced by 0 while their trace is at most ``norm_eps``."""
    return mean(rows, upgrad_weights(rows, norm_eps=norm_eps).tolist())


def dnc_strict(rows, f, draws):
    """DnC that averages the rows never left out, even if there are none."""
    rejections, result = dnc(rows, f, 1.0, draws)
    return result if 0 in rejections else [math.nan] * len(rows[0])


def sign_guard_by_density(rows):
    """SignGuard whose clusters are DBSCAN's; it raises where there is none."""
    from sklearn.cluster import DBSCAN

    labels = DBSCAN(eps=0.05, min_samples=3).fit(sign_features(rows, 0, len(rows[0]))).labels_
    kept = [row for row, label in zip(rows, labels, strict=True) if label >= 0]
    return mean(kept) if kept else "raises"


def sign_guard_clipped_first(rows, low=0.1, high=3.0):
    """SignGuard of rows with the same signs, clipped before their lengths are looked at."""
    limit = middle([norm(row) for row in rows])
    short = [clipped(row, limit) for row in rows]
    return mean([row for row in short if low * limit < norm(row) < high * limit])


def zeno_best(rows, f, loss, rho=5e-4):
    """Zeno that keeps the f best rows instead of all but f."""
    worth = [loss([0.0] * len(row)) - loss(row) - rho * dot(row, row) for row in rows]
    return mean([rows[i] for i in least([-w for w in worth], f)])


# Attacks. Honest rows, and what is sent


def shifted(rows, z, ddof=1, power=1):
    """mu + z sigma^power."""
    x = np.array(rows)
    return (x.mean(axis=0) + z * x.std(axis=0, ddof=ddof) ** power).tolist()


def share_of_paper(n, f):
    """The share whose quantile is ALIE's z."""
    supporters = n // 2 + 1 - f
    return (n - f - supporters) / (n - f)


def z_as_probability(n, f):
    """Phi where Phi^-1 is meant."""
    return float(normal.cdf(share_of_paper(n, f)))


def z_of_all(n, f):
    """The quantile of (n - s)/n."""
    return float(normal.ppf((n - (n // 2 + 1 - f)) / n))


def feasible(rows, candidate):
    """Whether no honest row is further from ``candidate`` than two honest rows are from each other."""
    widest = max(distance(a, b) for a, b in itertools.combinations(rows, 2))
    return max(distance(candidate, row) for row in rows) <= widest


def along_unit_mean(rows, gamma):
    mu = mean(rows)
    return [m - gamma * m / norm(mu) for m in mu]


def min_max_halving(rows):
    """The last feasible gamma of a search that starts at 10 in steps that start with 5 and halve."""
    gamma, step, best = 10.0, 5.0, 0.0
    while abs(best - gamma) > 1e-5:
        if feasible(rows, along_unit_mean(rows, gamma)):
            best, gamma = gamma, gamma + step
        else:
            gamma -= step
        step /= 2
    return best


def min_max_bisected(rows):
    """The midpoint left when bisection of [0, 5] is down to 0.01."""
    low, high = 0.0, 5.0
    while high - low > 0.01:
        mid = (low + high) / 2
        low, high = (mid, high) if feasible(rows, along_unit_mean(rows, mid)) else (low, mid)
    return (low + high) / 2


def min_sum_least(rows):
    """The gamma at which the sum of squared distances reaches the least of those of honest rows."""
    mu, sigma = mean(rows), np.array(rows).std(axis=0, ddof=1).tolist()
    return min(distance(row, mu) for row in rows) / norm(sigma)


def masked_signed(own, last, ratio):
    """Neurotoxin whose mask takes the lowest entries of ``last``, not the smallest."""
    kept = least(last, int(ratio * len(last)))
    return [x if i in kept else 0.0 for i, x in enumerate(own)]


def fang_masked_twice(rows):
    """The range of each entry, with its side applied twice: 0 where honest clients go down."""
    ranges = []
    for column, mu in zip(zip(*rows, strict=True), mean(rows), strict=True):
        low = min(column)
        ranges.append(sorted((low, low / 2 if low > 0 else 2 * low)) if mu >= 0 else [0.0, 0.0])
    return ranges


def optimal_ipm_climbing(rows, f, aggregate):
    """The epsilon that 20 evaluations find which only ever go up from 0."""
    mu = mean(rows)

    def strength(t):
        return distance(aggregate([*rows, *[[-t * m for m in mu]] * f]), mu)

    t, step, best, left = 0.0, 10.0, strength(0.0), 19
    while left:
        left -= 1
        found = strength(t + step)
        if found <= best:
            break
        t, best, step = t + step, found, 2 * step
    while left:
        step, left = 0.8 * step, left - 1
        found = strength(t + step)
        if found > best:
            t, best = t + step, found
    return t

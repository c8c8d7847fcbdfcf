"""Writes the sample problems beside this file. Every answer stands in the text and is computed too, mostly by enumeration; a difference stops it.

    python3 data/samples/make.py
"""

import itertools
import json
import math
import random
from fractions import Fraction
from pathlib import Path

HERE = Path(__file__).parent


def write(name, rows):
    assert len(rows) == 20 and len({row["problem"] for row in rows}) == 20, name
    lines = [json.dumps({"id": f"sample/{name}/{i}", **row}, ensure_ascii=False) + "\n" for i, row in enumerate(rows)]
    (HERE / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def checked(name, rows):
    for problem, stated, computed in rows:
        assert stated == str(computed), (name, problem, stated, computed)
    write(name, [{"problem": problem, "answer": stated} for problem, stated, _ in rows])


def frac(value):
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


# Word problems for whole numbers, ten in English and ten in Chinese.
GSM8K = [
    ("Mira bakes 4 trays of 12 rolls each. She keeps 6 rolls for her family and packs the rest into bags of 7. How many bags does she fill?",
     "6", (4 * 12 - 6) // 7),
    ("A tram starts with 31 passengers. At the first stop 9 get off and 14 get on, at the second stop half of those on board get off. "
     "How many passengers are left?", "18", (31 - 9 + 14) // 2),
    ("A notebook costs $3 and a pen costs $2. Tomas buys 5 notebooks and twice as many pens, and pays with a $50 note. How many dollars does he get back?",
     "15", 50 - (5 * 3 + 10 * 2)),
    ("Lena reads 18 pages on Monday and 7 pages more on each following day than on the day before. How many pages has she read by the end of Thursday?",
     "114", sum(18 + 7 * d for d in range(4))),
    ("A water tank holds 240 litres. A pump fills 16 litres per minute while a leak loses 4 litres per minute. "
     "How many minutes does it take to fill the empty tank?", "20", 240 // (16 - 4)),
    ("Three friends share the cost of a boat that rents for $45 per hour. They keep it for 4 hours and have a discount of $30 in all. "
     "How many dollars does each of them pay?", "50", (45 * 4 - 30) // 3),
    ("An orchard has 15 rows of 24 trees. A storm fells one tree in twelve. How many trees are still standing?", "330", 15 * 24 * 11 // 12),
    ("Ravi cycles 6 kilometres to work and the same way back, 5 days a week. His colleague Jana cycles a third of his weekly distance. "
     "How many kilometres do both cycle together in one week?", "80", 6 * 2 * 5 + 6 * 2 * 5 // 3),
    ("A shop sells a lamp for $80. In a sale the price falls by 25 percent, and on the last day by another $9. How many dollars does the lamp cost then?",
     "51", 80 * 75 // 100 - 9),
    ("Nora is 4 times as old as her son. In 6 years she will be 3 times as old as he is then. How old is Nora now?",
     "48", next(4 * s for s in range(1, 100) if 4 * s + 6 == 3 * (s + 6))),
    ("学校图书馆有8个书架，每个书架放45本书。本周借出72本，又新买了30本。现在图书馆里有多少本书？", "318", 8 * 45 - 72 + 30),
    ("小林每天跑步3公里，周末两天每天多跑2公里。他一周（七天）一共跑多少公里？", "25", 5 * 3 + 2 * 5),
    ("一箱苹果有36个，小店进了5箱，其中坏了12个。剩下的每袋装8个，可以装满多少袋？", "21", (5 * 36 - 12) // 8),
    ("王老师买了6盒粉笔，每盒7元，又买了3块黑板擦，每块5元。她付了100元，应找回多少元？", "43", 100 - 6 * 7 - 3 * 5),
    ("一列火车每小时行驶120公里，上午行驶3小时，下午行驶2小时，比全程还少50公里。全程多少公里？", "650", 120 * 5 + 50),
    ("农场里鸡和兔一共20只，共有56条腿。兔有多少只？", "8", next(r for r in range(21) if 4 * r + 2 * (20 - r) == 56)),
    ("妈妈今年40岁，女儿今年12岁。几年前妈妈的年龄是女儿的5倍？", "5", next(y for y in range(12) if 40 - y == 5 * (12 - y))),
    ("一块长方形菜地长18米，宽是长的三分之二。给它围一圈篱笆，需要多少米？", "60", 2 * (18 + 18 * 2 // 3)),
    ("工厂原计划每天生产50台机器，12天完成。实际每天多生产10台，提前几天完成？", "2", 12 - 50 * 12 // 60),
    ("小明有邮票84张，送给弟弟四分之一后，两人的邮票一样多。弟弟原来有多少张邮票？", "42", 84 - 84 // 4 - 84 // 4),
]

# School mathematics; six answers are not plain numbers.
MATH = [
    ("What is the remainder when $3^{50}$ is divided by $7$?", "2", pow(3, 50, 7)),
    ("How many positive divisors does $720$ have?", "30", sum(720 % d == 0 for d in range(1, 721))),
    ("Find the sum of all integers $n$ with $n^2 - 5n - 24 < 0$.", "25", sum(n for n in range(-99, 99) if n * n - 5 * n - 24 < 0)),
    ("Let $f(x) = 2x^2 - 3x + 1$. Find $f(f(2))$.", "10", (lambda f: f(f(2)))(lambda x: 2 * x * x - 3 * x + 1)),
    ("In how many ways can the letters of the word BANANA be arranged?", "60", len(set(itertools.permutations("BANANA")))),
    ("The sides of a triangle are $13$, $14$ and $15$. What is its area?", "84", math.isqrt(21 * 8 * 7 * 6)),
    ("What is the smallest positive integer that leaves remainder $2$ when divided by $5$, by $6$ and by $7$, and is larger than $2$?",
     "212", next(n for n in range(3, 9999) if n % 5 == n % 6 == n % 7 == 2)),
    ("Evaluate $\\sum_{k=1}^{20} (2k-1)$.", "400", sum(2 * k - 1 for k in range(1, 21))),
    ("How many three-digit numbers have digits that add up to $5$?", "15", sum(sum(map(int, str(n))) == 5 for n in range(100, 1000))),
    ("If $\\log_2 (x - 3) = 5$, what is $x$?", "35", 2**5 + 3),
    ("A regular polygon has interior angles of $162$ degrees. How many sides does it have?",
     "20", next(n for n in range(3, 99) if 180 * (n - 2) == 162 * n)),
    ("Write $0.1\\overline{6}$ as a decimal fraction rounded to two places.", "0.17", round(1 / 6, 2)),
    ("What is the largest prime factor of $2^{12} - 1$?", "13", max(p for p in range(2, 4096) if 4095 % p == 0 and all(p % q for q in range(2, p)))),
    ("Find the value of $a$ for which the line $y = ax - 4$ passes through $(3, 11)$.", "5", (11 + 4) // 3),
    ("Two fair dice are rolled. What is the probability that the product of the two numbers is odd?", "\\frac{1}{4}",
     frac(Fraction(sum(a * b % 2 for a in range(1, 7) for b in range(1, 7)), 36))),
    ("Compute $\\frac{2}{3} - \\frac{5}{4} \\cdot \\frac{2}{5}$ as a fraction in lowest terms.", "\\frac{1}{6}",
     frac(Fraction(2, 3) - Fraction(5, 4) * Fraction(2, 5))),
    ("Solve $6x + 5 = 2x + 2$ for $x$ and give a fraction in lowest terms.", "-\\frac{3}{4}", frac(Fraction(2 - 5, 6 - 2))),
    ("The diagonal of a rectangle with sides $4$ and $6$ is $2\\sqrt{n}$ with an integer $n$. Write the diagonal in this form.",
     "2\\sqrt{13}", f"2\\sqrt{{{(4**2 + 6**2) // 4}}}"),
    ("Three coins are tossed. What is the probability of at least two heads?", "\\frac{1}{2}",
     frac(Fraction(sum(sum(t) >= 2 for t in itertools.product((0, 1), repeat=3)), 8))),
    ("Find the point where the lines $x + y = 7$ and $2x - y = 2$ meet, as $(x, y)$.", "(3, 4)",
     next((x, y) for x in range(-9, 9) for y in range(-9, 9) if x + y == 7 and 2 * x - y == 2)),
]

# In the manner of AIME: every answer is an integer from 0 to 999.
AIME = [
    ("Find the number of ordered pairs of positive integers $(a, b)$ with $a + b \\le 30$ and $\\gcd(a, b) = 3$.", "31",
     sum(math.gcd(a, b) == 3 for a in range(1, 30) for b in range(1, 31 - a))),
    ("Find the remainder when $7^{2025} + 5^{2025}$ is divided by $1000$.", "932", (pow(7, 2025, 1000) + pow(5, 2025, 1000)) % 1000),
    ("How many four-digit positive integers have digits that strictly increase from left to right and a digit sum divisible by $5$?", "26",
     sum(sum(c) % 5 == 0 for c in itertools.combinations(range(1, 10), 4))),
    ("Find the number of subsets of $\\{1, 2, \\ldots, 10\\}$ that hold no two numbers differing by $1$ or by $3$.", "85",
     sum(all(b - a not in (1, 3) for a, b in itertools.combinations(s, 2)) for k in range(11) for s in itertools.combinations(range(1, 11), k))),
    ("Find the sum of all positive integers $n \\le 100$ for which $n^2 + n + 1$ is divisible by $19$.", "470",
     sum(n for n in range(1, 101) if (n * n + n + 1) % 19 == 0)),
    ("A bug starts at $0$ on a number line and makes $10$ jumps, each of $+1$ or $-2$. Find the number of sequences of jumps that end at a multiple of $5$.",
     "254", sum(sum(s) % 5 == 0 for s in itertools.product((1, -2), repeat=10))),
    ("The integers $1$ to $6$ are arranged in a circle so that no two neighbours add up to $7$. Rotations count as the same, reflections do not. "
     "Find the number of arrangements.", "32",
     sum(all(a + b != 7 for a, b in zip((1, *p), (*p, 1))) for p in itertools.permutations(range(2, 7)))),
    ("Find the number of positive integers $n \\le 999$ such that $n$ has exactly $6$ positive divisors.", "110",
     sum(sum(n % d == 0 for d in range(1, n + 1)) == 6 for n in range(1, 1000))),
    ("Let $a_1 = 2$, $a_2 = 3$ and $a_{n} = a_{n-1}a_{n-2} + 1$. Find the remainder when $a_{20}$ is divided by $997$.", "306", None),
    ("Find the number of ordered triples $(x, y, z)$ of nonnegative integers with $x + 2y + 5z = 40$.", "97",
     sum((40 - 5 * z - 2 * y) >= 0 for z in range(9) for y in range(21))),
    ("The product of all positive divisors of $N$ is $2^{18} \\cdot 3^{12}$. Find $N$.", "72", None),
    ("Find the number of integers $n$ with $1 \\le n \\le 1000$ for which $\\lfloor n/7 \\rfloor = \\lfloor n/8 \\rfloor + 2$.", "56",
     sum(n // 7 == n // 8 + 2 for n in range(1, 1001))),
    ("A fair die is rolled $4$ times. The probability that the rolls never decrease is $\\frac{m}{n}$ in lowest terms. Find $m + n$.", "79",
     (lambda f: f.numerator + f.denominator)(Fraction(sum(list(r) == sorted(r) for r in itertools.product(range(6), repeat=4)), 6**4))),
    ("Find the largest integer that cannot be written as $11a + 17b$ with nonnegative integers $a$ and $b$.", "159",
     max(n for n in range(999) if not any((n - 11 * a) >= 0 and (n - 11 * a) % 17 == 0 for a in range(91)))),
    ("Find the number of $3 \\times 3$ grids of zeros and ones in which every row and every column has an even sum.", "16",
     sum(all(sum(g[3 * i:3 * i + 3]) % 2 == 0 and sum(g[i::3]) % 2 == 0 for i in range(3)) for g in itertools.product((0, 1), repeat=9))),
    ("The polynomial $x^3 - 12x^2 + 41x - 42$ has roots $p < q < r$. Find $p^3 + q^3 + r^3$.", "378",
     sum(x**3 for x in range(1, 42) if x**3 - 12 * x**2 + 41 * x - 42 == 0)),
    ("The number $105$ can be written in several ways as a sum of two or more consecutive positive integers. Find the sum of the smallest terms of all of them.",
     "139", sum(a for a in range(1, 105) for b in range(a + 1, 105) if sum(range(a, b + 1)) == 105)),
    ("Find the smallest positive integer that is divisible by $8$ and whose decimal digits are all $2$ or $7$, with both occurring.", "72",
     next(n for n in itertools.count(8, 8) if set(str(n)) == {"2", "7"})),
    ("Find the number of permutations of $1, 2, \\ldots, 6$ in which exactly two numbers keep their places.", "135",
     sum(sum(p[i] == i for i in range(6)) == 2 for p in itertools.permutations(range(6)))),
    ("A set of $8$ points lies on a circle. Find the number of ways to draw three chords with six different end points such that no two chords cross.",
     "140", None),
]


def sequence():
    a, b = 2, 3
    for _ in range(18):
        a, b = b, a * b + 1
    return b % 997


def divisors_product():
    for n in range(1, 1000):
        if math.prod(d for d in range(1, n + 1) if n % d == 0) == 2**18 * 3**12:
            return n


def chords():
    crosses = lambda p, q: p[0] < q[0] < p[1] < q[1] or q[0] < p[0] < q[1] < p[1]
    pairs = list(itertools.combinations(range(8), 2))
    triples = itertools.combinations(pairs, 3)
    return sum(len({*a, *b, *c}) == 6 and not (crosses(a, b) or crosses(a, c) or crosses(b, c)) for a, b, c in triples)


COMPUTED = {8: sequence, 10: divisors_product, 19: chords}
AIME = [(p, s, COMPUTED[i]() if c is None else c) for i, (p, s, c) in enumerate(AIME)]


# Countdown: solved by trying every way to combine two values into one.
def solve(values, target):
    if len(values) == 1:
        return values[0][1] if values[0][0] == target else None
    for i, j in itertools.permutations(range(len(values)), 2):
        rest = [v for k, v in enumerate(values) if k not in (i, j)]
        (a, left), (b, right) = values[i], values[j]
        results = [(a - b, f"({left} - {right})")] + ([(a / b, f"({left} / {right})")] if b else [])
        if i < j:
            results += [(a + b, f"({left} + {right})"), (a * b, f"({left} * {right})")]
        for result in results:
            if found := solve([*rest, result], target):
                return found
    return None


def countdown():
    draw, rows = random.Random(20), []
    while len(rows) < 20:
        numbers = [draw.randint(1, 50) for _ in range(3 + len(rows) // 8)]
        target = draw.randint(10, 99)
        answer = solve([(Fraction(n), str(n)) for n in numbers], target)
        if answer:
            listed = ", ".join(map(str, numbers))
            problem = f"Reach {target} with the numbers {listed}. Use every number exactly once; +, -, *, / and parentheses are allowed."
            rows.append({"problem": problem, "answer": answer[1:-1], "nums": numbers, "target": target})
    return rows


# Knights and knaves: all assignments are tried, and only puzzles with one solution are kept.
def holds(s, roles):
    head, *parts = s
    if head in ("telling-truth", "lying"):
        return roles[parts[0]] == (head == "telling-truth")
    values = [holds(p, roles) for p in parts]
    return {"not": lambda: not values[0], "and": lambda: all(values), "or": lambda: any(values),
            "->": lambda: not values[0] or values[1], "<=>": lambda: values[0] == values[1]}[head]()


def words(s, names):
    head, *parts = s
    if head in ("telling-truth", "lying"):
        return f"{names[parts[0]]} is a {'knight' if head == 'telling-truth' else 'knave'}"
    if head == "not":
        return words(parts[0], names).replace(" is a ", " is not a ")
    a, b = (words(p, names) for p in parts)
    return {"and": f"{a} and {b}", "or": f"{a} or {b}", "->": f"if {a} then {b}", "<=>": f"{a} if and only if {b}"}[head]


def knights():
    draw, rows = random.Random(21), []
    people = ["Ada", "Boris", "Clara", "Dmitri", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas"]
    leaf = lambda n: [draw.choice(["telling-truth", "lying"]), draw.randrange(n)]
    while len(rows) < 20:
        n = 2 + len(rows) // 4
        names, statements = draw.sample(people, n), []
        for _ in range(n):
            head = draw.choice(["leaf", "not", "and", "or", "->", "<=>"])
            statements.append(leaf(n) if head == "leaf" else [head, leaf(n)] if head == "not" else [head, leaf(n), leaf(n)])
        fits = lambda roles: all(holds(s, roles) == r for s, r in zip(statements, roles))
        solutions = [roles for roles in itertools.product((False, True), repeat=n) if fits(roles)]
        if len(solutions) != 1 or any(len(s) == 3 and s[1] == s[2] for s in statements):
            continue
        said = "".join(f'\n{name} says: "{words(s, names)}."' for name, s in zip(names, statements))
        problem = f"Knights always tell the truth and knaves always lie. You meet {', '.join(names)}.{said}\nWho is a knight and who is a knave?"
        answer = ", ".join(f"{name} is a {'knight' if role else 'knave'}" for name, role in zip(names, solutions[0]))
        rows.append({"problem": problem, "answer": answer, "names": names, "solution_bool": list(solutions[0]), "statements": statements})
    return rows


if __name__ == "__main__":
    checked("gsm8k", GSM8K)
    checked("math", MATH)
    checked("aime", AIME)
    write("countdown", countdown())
    write("knights", knights())
    print("five files of 20 problems, every answer computed")

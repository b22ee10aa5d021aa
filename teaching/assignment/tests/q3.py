test = {
    "name": "q3",
    "points": 6,
    "suites": [
        {
            "type": "doctest",
            "scored": True,
            "setup": "",
            "teardown": "",
            "cases": [
                {
                    "code": r"""
>>> t, a = best_threshold([3, 4, 5], [0, 1, 2])
>>> float(t), float(a)
(3.0, 1.0)
""",
                    "hidden": True,
                    "locked": False,
                },
                {
                    "code": r"""
>>> t, a = best_threshold([1, 3], [2, 0])
>>> float(t), float(a)
(1.0, 0.75)
""",
                    "hidden": True,
                    "locked": False,
                },
                {
                    "code": r"""
>>> t, a = best_threshold([0.9] * 9 + [0.1], [0.5])
>>> round(float(t), 6), round(float(a), 6)
(0.9, 0.95)
""",
                    "hidden": True,
                    "locked": False,
                },
                {
                    "code": r"""
>>> t, a = best_threshold([2, 2], [2, 2])
>>> float(t), float(a)
(2.0, 0.5)
""",
                    "hidden": True,
                    "locked": False,
                },
                {
                    "code": r"""
>>> import numpy as np
>>> t, a = best_threshold(np.array([0.25, 0.75]), np.array([0.5]))
>>> float(t), float(a)
(0.75, 0.75)
""",
                    "hidden": True,
                    "locked": False,
                },
            ],
        }
    ],
}

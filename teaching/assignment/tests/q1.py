test = {
    "name": "q1",
    "points": 4,
    "suites": [
        {
            "type": "doctest",
            "scored": True,
            "setup": "",
            "teardown": "",
            "cases": [
                {
                    "code": r"""
>>> round(float(margin([0.2, 0.9, 0.5])), 6)
0.4
""",
                    "hidden": True,
                    "locked": False,
                },
                {
                    "code": r"""
>>> round(float(margin([-0.3, -0.1])), 6)
0.2
""",
                    "hidden": True,
                    "locked": False,
                },
                {
                    "code": r"""
>>> [round(float(margin(x)), 6) for x in ([0.7], [])]
[0.7, 0.0]
""",
                    "hidden": True,
                    "locked": False,
                },
                {
                    "code": r"""
>>> round(float(margin([0.5, 0.5, 0.1])), 6)
0.0
""",
                    "hidden": True,
                    "locked": False,
                },
            ],
        }
    ],
}

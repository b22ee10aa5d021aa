test = {
    "name": "q4",
    "points": 5,
    "suites": [
        {
            "type": "doctest",
            "scored": True,
            "setup": "",
            "teardown": "",
            "cases": [
                {
                    "code": r"""
>>> found = say_no(limit=6)
>>> sorted(found), all(0 <= v <= 1 for v in found.values())
(['largest', 'margin'], True)
""",
                    "hidden": True,
                    "locked": False,
                },
                {
                    "code": r"""
>>> seen = []
>>> keep = collect
>>> def collect(split, limit, number):
...     seen.append(split)
...     return ([1.0, 2.0, 3.0], [0.0]) if split == 'val' else ([2.0, 0.5], [0.0, 1.5])
>>> globals_of = say_no.__globals__
>>> globals_of['collect'] = collect
>>> found = say_no(limit=1)
>>> globals_of['collect'] = keep
>>> found['largest'], sorted(set(seen))
(0.5, ['test', 'val'])
""",
                    "hidden": True,
                    "locked": False,
                },
            ],
        }
    ],
}

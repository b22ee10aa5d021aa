test = {
    "name": "q2",
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
>>> absent_nouns([{'cat', 'dog'}, {'cup'}, {'dog', 'owl'}])
[['cup', 'owl'], ['cat', 'dog'], ['cat', 'cup']]
""",
                    "hidden": True,
                    "locked": False,
                },
                {
                    "code": r"""
>>> absent_nouns([{'a'}, {'a', 'b'}], each=5)
[['b'], []]
""",
                    "hidden": True,
                    "locked": False,
                },
                {
                    "code": r"""
>>> absent_nouns([{'x', 'y'}])
[[]]
""",
                    "hidden": True,
                    "locked": False,
                },
                {
                    "code": r"""
>>> scenes = [{'b', 'c'}, {'a'}]
>>> absent_nouns(scenes, each=1), scenes == [{'b', 'c'}, {'a'}]
([['a'], ['b']], True)
""",
                    "hidden": True,
                    "locked": False,
                },
                {
                    "code": r"""
>>> absent_nouns([])
[]
""",
                    "hidden": True,
                    "locked": False,
                },
            ],
        }
    ],
}

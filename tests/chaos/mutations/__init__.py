"""Safeguards taken out of live processes, one module each, to see whether the suite notices.

An actor imports the module that the file `mutation` in the tests' folder of crash points names, when it starts; see
`storage.crash_points.take_up_mutation`.
"""

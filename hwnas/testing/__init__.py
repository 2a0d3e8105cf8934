"""Does a plug-in keep to its protocol? Conformance tests that an author inherits, one file for each kind of plug-in.

They need pytest no more than any other plain class with ``test_*`` methods does. An author writes::

    from hwnas.testing.target import TargetTests

    class TestMyTarget(TargetTests):
        def make(self):
            return MyTarget()
"""

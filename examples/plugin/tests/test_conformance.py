"""The tests that hwnas gives to authors of plug-ins, for one plug-in of every kind."""

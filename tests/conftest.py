"""Hypothesis profiles: quick by default, `--hypothesis-profile=ci` or `nightly` for more."""

import hypothesis

hypothesis.settings.register_profile("quick", max_examples=20, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=60, deadline=None)
hypothesis.settings.register_profile("nightly", max_examples=5000, deadline=None)
hypothesis.settings.load_profile("quick")

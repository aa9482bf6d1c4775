# The two commands of the README. On Debian 12 each does all of its own set-up and says what it does.
.PHONY: demo test demo-check torture

# Two short jobs, end to end, on the CPU: the MP4s and a report under build/demo/out.
demo:
	@tools/deps build
	@tools/build release
	@tools/demo

# Every test that runs on this machine; the last line is `N passed, N failed, N skipped`.
test:
	@tools/deps build test
	@tools/run-tests dev

# Three clips of the small model, and how well their mouths follow voices that it was not trained on.
demo-check:
	@tools/deps build
	@tools/build dev
	@tools/demo-check 3

# The program killed at every point, a thousand jobs in one process: tens of minutes.
torture:
	@tools/deps build test
	@tools/build dev
	@tools/torture

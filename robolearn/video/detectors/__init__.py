"""One file, one way to find hands in pictures (`robolearn.video.hands.make_detector`)."""

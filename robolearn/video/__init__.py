"""Human video: pinhole geometry, calibration, hands and the motion tracks that are learnt from them. No torch."""

"""What runs beside a robot: no torch."""

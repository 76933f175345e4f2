"""A policy on one computer, the robot on another: wire, server, client. No torch, no pickle; hostile peers are expected."""

"""Companion to *Quality Adaptive Angular Margin Learning for Respiratory Sound Classification*."""

__version__ = "0.1.0"

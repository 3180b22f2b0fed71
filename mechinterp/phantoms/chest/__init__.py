"""Chest radiographs rendered from physical parameters: lungs, heart, bones, a nodule, an effusion, a pacemaker."""

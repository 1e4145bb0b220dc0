"""The frame doctor: are the coordinates of the picks those of these micrographs?"""

"""A YOLO detector for particles as crYOLO is one: Wagner et al., Commun. Biol. 2, 218 (2019)."""

"""What a pruning did, to look at: `report.html`, `contact_sheet.png`, `overlays/`."""

"""From one format of picks to another."""

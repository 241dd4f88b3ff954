"""From a driving frame or voice to motion: trackers, filters, presence, idle life."""

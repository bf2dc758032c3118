"""What people read of a run: tables, status, contact sheet, page."""

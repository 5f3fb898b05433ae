"""Pages, figures and tables out of the files that other rooms write. Nothing is computed here."""

"""Pages, figures and tables made from the files that other rooms write. No metric is computed here."""

"""What is written of an evaluation: tables, files and one offline page."""

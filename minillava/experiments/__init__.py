"""The paper in miniature: runs, tables, reports, the pages and samples that the repository keeps."""

"""The dashboard: a page where people look, correct and compare.

Each module says in its first lines what it knows; `page` puts the widgets together, notebooks/dashboard.ipynb shows
them. None of them imports TensorFlow or torch.
"""

"""Making a manifest from tables, folders of images, COCO captions and products of lists."""

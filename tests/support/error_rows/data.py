"""Wrong data."""
# ruff: noqa: E501

from __future__ import annotations

from tests.support.error_rows import Row

TITLE = "Data"

# fmt: off
DATA = "prune --out x.safetensors --model simple_cnn --data"
FITTED = "prune --out x.safetensors --weights good.safetensors --data"
SMALL = "--image-size 16"
TWO = "prune --out x.safetensors --model two.py:Net --data"
ROWS = [
    Row("no data", "prune --out x.safetensors --model simple_cnn", "no data is named. Give --data: digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder:PATH, letterbox:PATH, npz:PATH, package.module:loader."),
    Row("records data that is code", "prune --weights …", "the model's file records the data …, which is code, and a file must not make code run. Give --data … if you know that code.", test="calibration/data/test_loaders.py::test_code_that_a_file_names_does_not_run"),
    Row("no such data set", f"{DATA} cifar-10", "unknown data 'cifar-10'. Did you mean cifar10? Known: digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder:PATH, letterbox:PATH, npz:PATH, package.module:loader."),
    Row("missing", f"{DATA} npz:missing.npz", "cannot read missing.npz: No such file or directory."),
    Row("a directory", f"{DATA} npz:folder.npz", "cannot read folder.npz: Is a directory."),
    Row("a link to itself", f"{DATA} npz:loop.npz", "cannot read loop.npz: Too many levels of symbolic links."),
    Row("the disk fails", f"{DATA} npz:unreadable.npz", "cannot read unreadable.npz: Input/output error."),
    Row("empty", f"{DATA} npz:empty.npz", "cannot read empty.npz: it is not an npz file, or is truncated. Write numpy.savez(path, images=...)."),
    Row("truncated", f"{DATA} npz:half.npz", "cannot read half.npz: it is not an npz file, or is truncated. Write numpy.savez(path, images=...)."),
    Row("another type", f"{DATA} npz:text.npz", "cannot read text.npz: it is not an npz file, or is truncated. Write numpy.savez(path, images=...)."),
    Row("too large: claims 64 TiB", f"{DATA} npz:bomb.npz", "cannot read bomb.npz: …."),
    Row("pickled objects, which are code", f"{DATA} npz:objects.npz", "cannot read objects.npz: …."),
    Row("no images", f"{DATA} npz:other.npz", "cannot read other.npz: it has no array 'images', only ['pictures']. Write numpy.savez(path, images=...)."),
    Row("no images", f"{DATA} npz:none.npz", "cannot read none.npz: images have shape (0, 1, 8, 8). Give images (N, C, H, W) with no dimension of 0."),
    Row("wrong shape", f"{DATA} npz:flat.npz", "cannot read flat.npz: images have shape (1, 8, 8). Give images (N, C, H, W) with no dimension of 0."),
    Row("wrong dtype", f"{DATA} npz:int32.npz", "cannot read int32.npz: images have dtype int32. Give uint8 in 0..255, or floats."),
    Row("images that do not fit the weights", f"{FITTED} npz:rgb.npz", "the checkpoint does not fit the model: its conv1.weight has shape (64, 1, 3, 3), the model's (64, 3, 3, 3). Check --model, --data and --num-classes."),
    Row("NaN", f"{DATA} npz:nan.npz", "image 6 contains NaN or infinity. Fix it, or remove it."),
    Row("infinity, as half precision overflows", f"{DATA} npz:float16.npz", "image 6 contains NaN or infinity. Fix it, or remove it."),
    Row("beyond float32", f"{DATA} npz:large.npz", "image 6 contains NaN or infinity. Fix it, or remove it."),
    Row("fewer labels than images", f"{DATA} npz:few.npz", "cannot read few.npz: there are 5 labels for 20 images."),
    Row("negative labels", f"{DATA} npz:negative.npz", "cannot read negative.npz: label -1 is negative. Class numbers start at 0."),
    Row("labels of 2⁶² classes", f"{DATA} npz:many.npz", "building simple_cnn failed: RuntimeError: …."),
    Row("more samples than images", f"{DATA} npz:good.npz --samples 21", "21 samples are requested, 20 exist. Request 1 to 20 samples."),
    Row("calibrated and evaluated on the same images", "prune-export --out x --weights good.safetensors --data npz:good.npz --eval-data npz:good.npz", "the training and evaluation images are the same. Give other images as --eval-data."),
    Row("evaluation labels of another network", "prune-export --out x --weights good.safetensors --data digits --eval-data npz:many.npz", "evaluation labels …. Give the model's own data as --data or --eval-data."),
    Row("no labels to learn from", "train --out x.safetensors --model simple_cnn --data npz:rgb.npz", "npz:rgb.npz has no labels to train on. Use class folders, or an npz with 'labels'."),
    Row("missing", f"{DATA} imagefolder:missing", "cannot read missing: No such file or directory."),
    Row("a file", f"{DATA} imagefolder:good.npz", "cannot read good.npz: Not a directory."),
    Row("a link to itself", f"{DATA} imagefolder:loop.npz", "cannot read loop.npz: Too many levels of symbolic links."),
    Row("empty", f"{DATA} imagefolder:no_images", "cannot read no_images: there are no images."),
    Row("not an image", f"{DATA} imagefolder:broken {SMALL}", "cannot read broken/a.png: …. Fix the image, or remove it from the folder."),
    Row("an image that links to itself", f"{DATA} imagefolder:linked {SMALL}", "cannot read linked/a.png: Too many levels of symbolic links. Fix the image, or remove it from the folder."),
    Row("a folder that links to itself", f"{DATA} imagefolder:endless {SMALL}", "cannot read endless/self: endless/self/self links to its own parent folder. Remove the link."),
    Row("too large: 10 GB in 57 bytes", f"{DATA} imagefolder:bomb {SMALL}", "cannot read bomb/a.png: …. Fix the image, or remove it from the folder."),
    Row("too elongated: gigabytes after resizing", f"{DATA} imagefolder:thin {SMALL}", "cannot use thin/a.png: 1 × 5000 is too elongated. Remove it from the folder."),
    Row("missing", f"{DATA} mnist --data-root missing", "data 'mnist' not found in missing/MNIST/raw, missing/mnist, missing. Download the four files of MNIST, or give its folder as --data-root."),
    Row("a file for a folder", f"{DATA} mnist --data-root good.npz", "data 'mnist' not found in good.npz/MNIST/raw, good.npz/mnist, good.npz. Download the four files of MNIST, or give its folder as --data-root."),
    Row("a file is missing", f"{DATA} mnist --data-root idx", "idx/train-labels-idx1-ubyte is missing. It may be gzipped (.gz)."),
    Row("truncated", f"{DATA} mnist --data-root idx_half", "cannot read idx_half/train-images-idx3-ubyte: it has 640 bytes of data, but shape [20, 8, 8] needs 1280."),
    Row("truncated, gzipped", f"{DATA} mnist --data-root idx_gz", "cannot read idx_gz/train-images-idx3-ubyte.gz: …."),
    Row("another type", f"{DATA} mnist --data-root idx_text", "cannot read idx_text/train-images-idx3-ubyte: it is not an idx file of bytes in 3 dimensions."),
    Row("too large: claims 2⁶⁴ bytes", f"{DATA} mnist --data-root idx_large", "cannot read idx_large/train-images-idx3-ubyte: it has 0 bytes of data, but shape [4294967295, 65536, 65536] needs 18446744069414584320."),
    Row("missing", f"{DATA} cifar10 --data-root missing", "data 'cifar10' not found in missing/cifar-10-batches-py. Unpack cifar-10-python.tar.gz, or give its folder as --data-root."),
    Row("truncated", f"{DATA} cifar10 --data-root cifar_half", "cannot read cifar_half/cifar-10-batches-py/data_batch_1: …."),
    Row("code", f"{DATA} cifar10 --data-root cifar_code", "cannot read cifar_code/cifar-10-batches-py/data_batch_1: it contains builtins.print, which no CIFAR file does. Do not trust this file."),
    Row("no images", f"{DATA} cifar10 --data-root cifar", "cannot read cifar/cifar-10-batches-py/data_batch_1: it lacks 'data'."),
    Row("wrong dtype", f"{DATA} cifar10 --data-root cifar_float", "cannot read cifar_float/cifar-10-batches-py/data_batch_1: it contains an array of dtype 'f8', not of bytes."),
    Row("wrong shape", f"{DATA} cifar10 --data-root cifar_flat", "cannot read cifar_flat/cifar-10-batches-py/data_batch_1: …."),
    Row("too small a size", f"{DATA} digits --image-size 4", "images of shape (1, 8, 8) cannot be padded to (1, 4, 4). Only smaller images and grey ones can be adapted. Leave --image-size and --channels out."),
    Row("too large a size", f"{DATA} digits --image-size 10000000", "building simple_cnn failed: RuntimeError: …."),
    Row("NaN", f"{DATA} digits --mean nan", "mean [nan] does not fit images of 1 channel. Give 1 number, at most 1e+06 in size."),
    Row("no number", f"{DATA} digits --mean a,b", "--mean 'a,b' is not a list of numbers. For example 0.485,0.456,0.406."),
    Row("beyond float32", f"{DATA} digits --mean 1e39", "mean [1e+39] does not fit images of 1 channel. Give 1 number, at most 1e+06 in size."),
    Row("zero in float32", f"{DATA} digits --std 1e-300", "std 1e-300 is too small. Give --std numbers of 1e-06 or more."),
    Row("on the scale 0..255", f"{DATA} digits --mean 33 --std 66", "--mean or --std is on the scale 0..255, the images are on 0..1. Give --mean 0.1294 and --std 0.2588."),
    Row("more numbers than channels", f"{DATA} digits --std 1,2", "std [1.0, 2.0] does not fit images of 1 channel. Give 1 number, at most 1e+06 in size."),
    Row("images for a network with several inputs", f"{TWO} digits", "the network's inputs are images, vector, and digits has images only. Give npz:PATH with one array for each, or package.module:loader."),
    Row("an input is missing", f"{TWO} npz:good.npz", "cannot read good.npz: the network's inputs are images, vector, the data has images, labels. Name the arrays as the inputs."),
    Row("an input has another name", f"{TWO} npz:unnamed.npz", "cannot read unnamed.npz: the network's inputs are images, vector, the data has images, vec. Name the arrays as the inputs."),
    Row("inputs of different length", f"{TWO} npz:uneven.npz", "cannot read uneven.npz: the inputs differ in their number of samples: images 20, vector 19. The first axis of each is N."),
    Row("inputs of a wrong shape", f"{TWO} npz:wide.npz", "the model does not take inputs of shapes (1, 8, 8), (5,): …. Check that --model and --data belong together: channels, height and width."),
    Row("infinity in an input", f"{TWO} npz:holes.npz", "vector of sample 6 contains NaN or infinity. Fix it."),
    Row("a normalisation for several inputs", f"{TWO} npz:two.npz --mean 0.5", "--mean and --std do not fit inputs by name, which stay as they are. Leave them out."),
    Row("a size for several inputs", f"{TWO} npz:two.npz --image-size 8", "--image-size and --channels do not fit inputs by name, which stay as they are. Leave them out."),
    Row("a network with several inputs to train", "train --out x.safetensors --model two.py:Net --data npz:good.npz", "train takes networks of images only, two.py:Net has the inputs images, vector. Train it with your own code; all commands after that take its data by name."),
    Row("a loader gives too few inputs", f"{TWO} one_array.py:batches", "one_array.py:batches gives 1 array, the network's inputs are images, vector. Give dicts, or tuples of the inputs, with or without labels after them."),
    Row("out of range", f"{DATA} digits --seed 4294967296", "Invalid value for '--seed': …. See --help.", 2),
]
# fmt: on
